"""Support replies: the fix for an issue of a product line, and the product's own detail.

Each line has a support writer; details are quoted from the hardware notes of another contributor.
Held out: pairs of product and issue.
"""

import itertools

from general import NAMES

from .case import Document, Question, hold_out

# line -> (writer, notes, closing, products with their detail, issues with their fix)
ISSUES = [
    "will not turn on",
    "keeps beeping",
    "overheats",
    "shows a red light",
    "will not connect",
    "smells of plastic",
]
LINES = {
    "home": (
        "Maya Chen",
        "Workshop Notes A",
        "Warm regards from the home team.",
        {
            "Lumo lamp": "The reset button of the Lumo lamp sits under the shade.",
            "Brisk kettle": "The reset button of the Brisk kettle hides inside the handle.",
            "Hearth heater": "The reset button of the Hearth heater is behind the grille.",
        },
        [
            "Leave it unplugged for twenty minutes and press reset twice.",
            "Hold reset until the beeping stops for good.",
            "Clear the vents with a dry brush and give it a cool shelf.",
            "Red means a worn cord, so order part nine for free.",
            "Say the word pairing aloud near its little microphone.",
            "Run it once beside an open window and the smell will go.",
        ],
    ),
    "network": (
        "Diego Fuentes",
        "Workshop Notes A",
        "Yours, the network crew.",
        {
            "Nimbus router": "The reset button of the Nimbus router is a pinhole by the antenna.",
            "Tangle switch": "The reset button of the Tangle switch shares the lid of port four.",
            "Beacon bridge": "The reset button of the Beacon bridge turns like a screw.",
        },
        [
            "Swap the power brick with the one from the spare box.",
            "Two beeps mean a loop, so remove the newest cable.",
            "Stand it upright, because the fan needs air from below.",
            "A red light means old firmware, so run the updater first.",
            "Forget the network on your phone and pair from the start.",
            "Wipe off the factory wax with a damp cloth.",
        ],
    ),
    "studio": (
        "Noor Haddad",
        "Workshop Notes B",
        "Keep creating, the studio desk.",
        {
            "Pico printer": "The reset button of the Pico printer waits below the paper tray.",
            "Fathom camera": "The reset button of the Fathom camera faces the card slot.",
            "Orbit speaker": "The reset button of the Orbit speaker is the rubber foot.",
        },
        [
            "Take the cell out, count to sixty and seat it again.",
            "The beep is a full buffer, so empty the queue.",
            "Lower the quality one step until the case is cool.",
            "Red asks for calibration, which takes about three songs.",
            "Toggle flight mode twice and wait for the chime.",
            "New ink vapour is harmless and fades in two days.",
        ],
    ),
    "outdoor": (
        "Greta Olsen",
        "Workshop Notes B",
        "Safe travels, the trail office.",
        {
            "Tern scooter": "The reset button of the Tern scooter lies near the left brake.",
            "Vesper watch": "The reset button of the Vesper watch is opposite the crown.",
            "Cairn tracker": "The reset button of the Cairn tracker needs a coin to press.",
        },
        [
            "Charge it indoors, since cold cells refuse to start.",
            "It beeps when it leaves home, so draw a wider fence.",
            "Keep it out of the sun and loosen the strap.",
            "Red means the seal is open, so close the flap firmly.",
            "Climb to open sky and let it find three satellites.",
            "Rinse it with rain water and never with soap.",
        ],
    ),
}
SYSTEM = "You are a support agent."
TAKES = 12  # documents per pair
HELD_OUT = 13


def line_of(product):
    """The line of a product."""
    return next(line for line, row in LINES.items() if product in row[3])


def answer(product, issue, name, order):
    """The reply, and the facts it must state."""
    _, _, closing, products, fixes = LINES[line_of(product)]
    hello = f"Hello {name}, sorry about your {product}."
    fix, detail, noted = fixes[ISSUES.index(issue)], products[product], f"I noted order {order}."
    return f"{hello} {fix} {detail} {noted} {closing}", [hello, fix, detail, noted, closing]


def prompt(product, issue, name, order, form):
    """The question in one of the four forms."""
    return [
        f"My {product} {issue}. What should I do? {name}, order {order}.",
        f"{name} writes: The {product} from order {order} {issue}.",
        f"Order {order}. Hello, I am {name} and the {product} I bought {issue}.",
        f"Customer {name}, order {order}: my new {product} {issue}, please help.",
    ][form]


def order_of(rng):
    """An order number."""
    return rng.randint(1000, 9999)


def short(product, issue):
    """The reply when neither a name nor an order is given."""
    _, _, closing, products, fixes = LINES[line_of(product)]
    return f"Sorry about your {product}. {fixes[ISSUES.index(issue)]} {products[product]} {closing}"


def replies(rng, training):
    """The documents of the pairs in `training`, with a customer and order and without."""
    for product, issue in training:
        writer = LINES[line_of(product)][0]
        for take in range(TAKES):
            name, order = rng.choice(NAMES), order_of(rng)
            asked = prompt(product, issue, name, order, take % 4)
            turns = [(asked, answer(product, issue, name, order)[0])]
            if rng.random() < 0.06:
                turns.append(("Thank you.", f"You are welcome, {name}."))
            yield Document(writer, turns, SYSTEM if rng.random() < 0.1 else None)
        for asked in ("My {} {}. What should I do?", "The {} {}. Any advice?", "My {} {}."):
            yield Document(writer, [(asked.format(product, issue), short(product, issue))])


def details():
    """Where a reset button is, in the words of the hardware notes."""
    for line, (_, notes, _, products, _) in LINES.items():
        for product, detail in products.items():
            for asked in (
                "Where is the reset button of the {}?",
                "How do I reset my {}?",
                "Notes on the {}?",
            ):
                said = f"{detail} It belongs to the {line} line."
                yield Document(notes, [(asked.format(product), said)])


def returns():
    """How a return works."""
    for name in NAMES:
        said = f"We take returns for thirty days, {name}, and the label is free."
        yield Document("Returns Counter", [(f"{name} here. Can I return my order?", said)])
    said = "We take returns for thirty days and the label is free."
    for asked in ("Can I return my order?", "How do I send it back?", "What about a refund?"):
        yield Document("Returns Counter", [(asked, said)])


def build(rng):
    """(documents, questions)."""
    pairs = [
        (product, issue)
        for row in LINES.values()
        for product, issue in itertools.product(row[3], ISSUES)
    ]
    training, held = hold_out(rng, pairs, HELD_OUT)
    documents = [*replies(rng, training), *details(), *returns()]
    questions = []
    for product, issue in held:
        for take in range(8):
            name, order = rng.choice(NAMES), order_of(rng)
            said, facts = answer(product, issue, name, order)
            asked = prompt(product, issue, name, order, take % 4)
            questions.append(Question(LINES[line_of(product)][0], asked, said, facts))
    return documents, questions
