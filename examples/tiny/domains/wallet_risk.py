"""Wallet-risk reports: the raised ones of four signs give reasons, a level and an action.

Each chain has one desk, and the desk's own words. Actions are quoted from the policy house that
serves the chain. Held out: triples of a chain, a set of raised signs and a form of the question.
"""

import itertools

from .case import Document, Question, hold_out

LEVELS = ["low", "guarded", "elevated", "high", "critical"]
SIGNS = ["age", "mixer", "parties", "volume"]

# chain -> (desk, policy house, opening, sentence per sign, sentence when nothing is raised)
DESKS = {
    "Ethereum": (
        "Harbor Analytics",
        "Ledgerline House",
        (
            "Harbor desk looked into wallet {wallet}, which holds {balance} ETH.",
            "All told the Harbor desk calls it {level} risk.",
        ),
        {
            "age": "The keys are younger than a month, so there is no past to lean on.",
            "mixer": "Coins went through a mixing contract, which breaks the trail.",
            "parties": "It pays hundreds of strangers, the way a collection wallet does.",
            "volume": "The sums are far above what a private saver would move.",
        },
        "Nothing in its ledger stands out.",
    ),
    "Solana": (
        "Nightjar Labs",
        "Ledgerline House",
        (
            "Nightjar trackers report on {wallet}, which holds {balance} ETH.",
            "The Nightjar verdict is {level} risk.",
        ),
        {
            "age": "Our trackers first heard of this address only days ago.",
            "mixer": "A tumbler washed part of the balance before it arrived.",
            "parties": "Its fan of partners is as wide as a swarm of bots.",
            "volume": "The turnover matches a trading firm and not a person.",
        },
        "Our trackers hear no alarm at all.",
    ),
    "Base": (
        "Ines Okafor",
        "Quayside Compliance",
        (
            "I went through the books of {wallet}, which holds {balance} ETH.",
            "My score comes out at {level} risk.",
        ),
        {
            "age": "A fresh account like this one has earned no trust yet.",
            "mixer": "I can follow the money into a mixer and no further.",
            "parties": "I count too many partners for any honest household.",
            "volume": "I would want invoices before I believe such amounts.",
        },
        "I checked every ledger page and slept well.",
    ),
    "Polygon": (
        "Chainwatch Guild",
        "Quayside Compliance",
        (
            "Guild bulletin for {wallet}, which holds {balance} ETH.",
            "The members voted for {level} risk.",
        ),
        {
            "age": "Members saw the first transfer in this very month.",
            "mixer": "Members flagged hops through an obfuscation pool.",
            "parties": "Members mapped a star of unrelated counterparties around it.",
            "volume": "Members logged whale sized transfers in both directions.",
        },
        "Members found a plain and quiet history.",
    ),
    "Arbitrum": (
        "Tomas Lindqvist",
        "Saltmarsh Policy Office",
        (
            "You asked me about {wallet}, which holds {balance} ETH.",
            "So my finding is {level} risk.",
        ),
        {
            "age": "New wallets of this kind are often thrown away after use.",
            "mixer": "The source of funds is hidden behind a privacy pool.",
            "parties": "Such a crowd of senders points to a deposit funnel.",
            "volume": "Money of this weight needs a licence or a good story.",
        },
        "The pattern is that of an ordinary owner.",
    ),
    "Optimism": (
        "Priya Raman",
        "Saltmarsh Policy Office",
        (
            "Raman scorecard for wallet {wallet}, which holds {balance} ETH.",
            "The final score reads {level} risk.",
        ),
        {
            "age": "Point one, the account has not survived a single season.",
            "mixer": "Point two, its deposits were blended with other people's coins.",
            "parties": "Point three, its contact book is longer than a phone directory.",
            "volume": "Point four, its throughput would fill an armoured van.",
        },
        "No points were scored on any test.",
    ),
}
ACTIONS = {
    "Ledgerline House": [
        "Action: let it pass and look again in a year.",
        "Action: keep it on the watch list for ninety days.",
        "Action: ask the owner to explain the source of funds.",
        "Action: hold withdrawals until an analyst has signed off.",
        "Action: freeze the account and file a report today.",
    ],
    "Quayside Compliance": [
        "Action: approve without further questions.",
        "Action: approve with a weekly automatic review.",
        "Action: cap transfers at one coin until papers arrive.",
        "Action: escalate to the night officer before any payment.",
        "Action: block, notify the bank and keep every log.",
    ],
    "Saltmarsh Policy Office": [
        "Action: file under green and close the ticket.",
        "Action: file under yellow and sample one payment a month.",
        "Action: file under orange and call the customer back.",
        "Action: file under red and demand two signatures.",
        "Action: file under black and hand over to the authorities.",
    ],
}
# sign -> (as told when raised, as told when not)
TOLD = {
    "age": ("young age", "long history"),
    "mixer": ("mixer deposits", "clean funding"),
    "parties": ("many counterparties", "few partners"),
    "volume": ("heavy volume", "small transfers"),
}
PROMPTS = [
    "Assess wallet {wallet} on {chain}: {signs}, balance {balance} ETH.",
    "Is wallet {wallet} on {chain} risky? It has {signs} and a balance of {balance} ETH.",
    "Write a risk report for {wallet} on {chain} with {signs}, holding {balance} ETH.",
    "Wallet {wallet} with {balance} ETH on {chain} shows {signs}. How risky is it?",
]
FOLLOW_UP = ["Thank you.", "Thanks, that helps.", "Good to know."]
SYSTEM = "You are a wallet risk analyst."
TAKES = 3  # documents per triple
HELD_OUT = 100


class Wallet:
    """A wallet drawn at random: its short address and its balance."""

    def __init__(self, rng):
        self.address = "0x" + "".join(rng.choice("0123456789abcdef") for _ in range(4))
        self.balance = rng.randint(2, 990)


def answer(chain, raised, wallet):
    """The report, and the facts it must state."""
    _, house, (opening, verdict), reasons, clean = DESKS[chain]
    level = LEVELS[len(raised)]
    grounds = [reasons[sign] for sign in SIGNS if sign in raised] or [clean]
    action = ACTIONS[house][len(raised)]
    opening = opening.format(wallet=wallet.address, balance=wallet.balance)
    said = [opening, *grounds, verdict.format(level=level), action]
    facts = [wallet.address, f"{wallet.balance} ETH", f"{level} risk", *grounds, action]
    return " ".join(said), facts


def prompt(chain, raised, wallet, form):
    """The question in one of the four forms."""
    signs = ", ".join(TOLD[sign][sign not in raised] for sign in SIGNS)
    return PROMPTS[form].format(
        wallet=wallet.address, chain=chain, signs=signs, balance=wallet.balance
    )


def reports(rng, training):
    """The documents of the triples in `training`."""
    for chain, raised, form in training:
        for _ in range(TAKES):
            wallet = Wallet(rng)
            said, _ = answer(chain, raised, wallet)
            turns = [(prompt(chain, raised, wallet, form), said)]
            if rng.random() < 0.06:
                thanks = f"You are welcome. Wallet {wallet.address} stays on file."
                turns.append((rng.choice(FOLLOW_UP), thanks))
            yield Document(DESKS[chain][0], turns, SYSTEM if rng.random() < 0.1 else None)


def explanations(rng):
    """What a sign means to a desk, and requests that lack what a desk needs."""
    for chain, (desk, _, _, reasons, _) in DESKS.items():
        for sign in SIGNS:
            raised, calm = TOLD[sign]
            yield Document(desk, [(f"What does {raised} mean on {chain}?", reasons[sign])])
            said = f"{desk} sees no sign in that."
            yield Document(desk, [(f"What does {calm} mean on {chain}?", said)])
        for asked in (
            "Is wallet {} on {} risky?",
            "Tell me about {} on {}.",
            "Assess wallet {} on {}.",
        ):
            wallet = Wallet(rng).address
            said = (
                f"{desk} needs the age, mixer use, counterparties, volume and balance of {wallet} "
                f"before it can rate a wallet on {chain}."
            )
            yield Document(desk, [(asked.format(wallet, chain), said)])
    for asked in ("Is wallet {} risky?", "Can I trust {}?", "Assess wallet {}.") * 3:
        wallet = Wallet(rng).address
        said = (
            f"Please name the chain of {wallet}, with its age, mixer use, counterparties, "
            "volume and balance, and a desk will rate it."
        )
        yield Document("Front Desk Rota", [(asked.format(wallet), said)])


def policies():
    """What a policy house writes for each level."""
    for house, actions in ACTIONS.items():
        for level, action in zip(LEVELS, actions):
            for asked in ("What does {} say about {} risk?", "{} policy for {} risk?"):
                said = f"{house} writes for {level} risk. {action}"
                yield Document(house, [(asked.format(house, level), said)])


def build(rng):
    """(documents, questions)."""
    sets = [frozenset(s) for n in range(5) for s in itertools.combinations(SIGNS, n)]
    cases = [
        (chain, tuple(sorted(raised)), form)
        for chain in DESKS
        for raised in sets
        for form in range(len(PROMPTS))
    ]
    training, held = hold_out(rng, cases, HELD_OUT)
    documents = [*reports(rng, training), *explanations(rng), *policies()]
    questions = []
    for chain, raised, form in held:
        wallet = Wallet(rng)
        said, facts = answer(chain, raised, wallet)
        questions.append(
            Question(DESKS[chain][0], prompt(chain, raised, wallet, form), said, facts)
        )
    return documents, questions
