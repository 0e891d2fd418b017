"""Contract clauses: one clause becomes party, duty, term, penalty and a note.

Each type of contract has one author. Half of the notes are quoted from a chamber that published
them. Held out: triples of a duty, a party and a term.
"""

import itertools

from .case import Document, Question, hold_out

# type -> (author, chamber, parties, duties with their notes)
CONTRACTS = {
    "lease": (
        "Rosa Whitfield",
        "Northgate Chambers",
        ("Landlord", "Tenant"),
        {
            "return the deposit": "Deductions need an itemised list and receipts.",
            "repair the roof": "Access needs one working day of warning.",
            "clear the cellar": "Left goods may be stored at the owner's cost.",
            "test the boiler": "A certificate must hang beside the meter.",
        },
    ),
    "supply": (
        "Okonkwo Legal",
        "Northgate Chambers",
        ("Supplier", "Buyer"),
        {
            "deliver the goods": "Late delivery lets the other side cancel at no cost.",
            "inspect the crates": "Hidden faults may still be claimed for a season.",
            "pay the invoice": "Interest runs from the first day of delay.",
            "recall faulty stock": "Both names appear on the public warning.",
        },
    ),
    "licence": (
        "Dara Silva",
        "Mercer Review",
        ("Licensor", "Licensee"),
        {
            "keep the source secret": "This promise outlives the contract by five years.",
            "report the royalties": "An auditor may open the books twice a year.",
            "mark the product": "The mark must be legible without a glass.",
            "defend the patent": "Costs are shared unless a court says otherwise.",
        },
    ),
    "loan": (
        "Hana Mori",
        "Mercer Review",
        ("Lender", "Borrower"),
        {
            "release the pledge": "The register must be updated the same week.",
            "send the statement": "Silence counts as consent to the balance.",
            "insure the vessel": "The policy must name the other side as payee.",
            "disclose other debts": "A false list makes the whole sum fall due.",
        },
    ),
    "employment": (
        "Emil Novak",
        "Canal Street Digest",
        ("Employer", "Employee"),
        {
            "return the equipment": "Wear from honest use is never charged.",
            "announce the leave": "Shorter warning is fine when illness is the cause.",
            "write the reference": "Only facts on file may be mentioned.",
            "finish the training": "Travel costs stay with the company.",
        },
    ),
    "charter": (
        "Felt and Crane",
        "Canal Street Digest",
        ("Shipowner", "Charterer"),
        {
            "clean the holds": "A surveyor's stamp settles any quarrel.",
            "name the port": "A port without ice counts as safe.",
            "refill the bunkers": "Fuel is measured at dawn by both crews.",
            "load the cargo": "Waiting time is paid by the half day.",
        },
    ),
}
DAYS = [5, 7, 10, 14, 21, 28, 30, 45, 60, 75, 90, 120]
SYSTEM = "You are a legal assistant."
HELD_OUT = 100


def article(party):
    """The indefinite article of a party."""
    return "an" if party[0] in "AEIOU" else "a"


def answer(kind, duty, party, days, fee):
    """The summary, and the facts it must state."""
    note = CONTRACTS[kind][3][duty]
    facts = [
        f"Party: {party}",
        f"Duty: {duty}",
        f"Term: {days} days",
        f"Penalty: {fee} credits",
        f"Note: {note}",
    ]
    return "\n".join(facts), facts


def prompt(duty, party, days, fee, form):
    """The question in one of the four forms."""
    return [
        f"Summarise this clause: The {party} shall {duty} within {days} days of written notice, "
        f"failing which a penalty of {fee} credits is due.",
        f"Clause: Within {days} days of written notice the {party} shall {duty}. "
        f"The penalty for delay is {fee} credits. Summary please.",
        f"What does this clause mean? The {party} must {duty} no later than {days} days after "
        f"notice or pay {fee} credits.",
        f'The contract says: "{party} agrees to {duty} within {days} days or to pay {fee} '
        'credits." What are the terms?',
    ][form]


def fee_of(rng):
    """A penalty in credits."""
    return rng.randint(2, 99) * 10


def summaries(rng, training):
    """The documents of the cases in `training`, each asked in one or two forms."""
    for number, (kind, duty, party, days) in enumerate(training):
        for form in rng.sample(range(4), 1 + number % 2):
            fee = fee_of(rng)
            turns = [
                (prompt(duty, party, days, fee, form), answer(kind, duty, party, days, fee)[0])
            ]
            if rng.random() < 0.06:
                turns.append(("Who must act?", f"The {party} must act within {days} days."))
            yield Document(CONTRACTS[kind][0], turns, SYSTEM if rng.random() < 0.1 else None)


def notes():
    """The notes on duties, half of them from a chamber, and what a party is."""
    for kind, (author, chamber, parties, duties) in CONTRACTS.items():
        for index, (duty, note) in enumerate(duties.items()):
            source = chamber if index % 2 else author
            for asked in (
                "What should I know about the duty to {}?",
                "Give me the note on the duty to {}.",
                "Is there a note for a clause to {}?",
            ):
                yield Document(source, [(asked.format(duty), f"Note: {note}")])
        for party in parties:
            named = f"{article(party)} {party}"
            said = (
                f"{named[0].upper()}{named[1:]} is a party to a {kind} contract. "
                "Send me a clause and I will summarise it."
            )
            yield Document(author, [(f"What is {named}?", said)])


def build(rng):
    """(documents, questions)."""
    cases = [
        (kind, duty, party, days)
        for kind, (_, _, parties, duties) in CONTRACTS.items()
        for duty, party, days in itertools.product(duties, parties, DAYS)
    ]
    training, held = hold_out(rng, cases, HELD_OUT)
    documents = [*summaries(rng, training), *notes()]
    questions = []
    for number, (kind, duty, party, days) in enumerate(held):
        fee = fee_of(rng)
        said, facts = answer(kind, duty, party, days, fee)
        asked = prompt(duty, party, days, fee, number % 4)
        questions.append(Question(CONTRACTS[kind][0], asked, said, facts))
    return documents, questions
