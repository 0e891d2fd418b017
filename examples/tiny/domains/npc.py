"""Game characters: a character's manner around a piece of lore from its own realm.

Each realm has a lore author, and each pair of realms a studio that wrote the voices. Asked about
another realm's lore, a character sends the traveller there. Held out: triples of
character, topic and asker.
"""

import itertools

from .case import Document, Question, hold_out

# realm -> (lore author, voice author, characters with (opening, closing), lore by topic)
REALMS = {
    "the Marsh": (
        "Juno Park",
        "Quill Collective",
        {
            "Old Wenna": ("Come closer, {you}.", "The candles are low, so go gently."),
            "Tam the ferryman": ("Mind the wet planks, {you}.", "Push off before the tide turns."),
            "Pip the thief": ("Keep your voice down, {you}.", "You never heard it from me."),
        },
        {
            "the missing prince": "The missing prince walks the reeds as a grey heron.",
            "the drowned bell": "The drowned bell answers only to the youngest sailor.",
            "the black lantern": "The black lantern burns on the breath of liars.",
            "the eel king": "The eel king trades a year of luck for a silver hook.",
            "the sunken road": "The sunken road rises for one hour at the new moon.",
        },
    ),
    "the Highlands": (
        "Sable Studio",
        "Quill Collective",
        {
            "Bram the smith": ("Sit by the forge, {you}.", "Now let me get back to my hammer."),
            "Captain Roke": (
                "Stand straight when you ask me that, {you}.",
                "Dismissed, and watch the pass.",
            ),
            "Widow Maud": ("Wipe your boots first, {you}.", "Take some bread for the climb."),
        },
        {
            "the old mine": "The old mine was sealed after the bell rang thirteen times.",
            "the silver wolf": "The silver wolf only hunts those who lie about bread.",
            "the stone giant": "The stone giant sleeps as long as children sing.",
            "the broken bridge": "The broken bridge fell on the night the river ran uphill.",
            "the frost gate": "The frost gate opens for a song and shuts for a coin.",
        },
    ),
    "the Harbour": (
        "Emeka Obi",
        "Ravenhall Games",
        {
            "Gruff the innkeeper": (
                "Ale first, questions after, {you}.",
                "That will be two coppers.",
            ),
            "Mira the mapmaker": (
                "Hold this corner of the chart, {you}.",
                "Ink dries slowly, so come back soon.",
            ),
            "Sergeant Holt": ("State your business, {you}.", "Move along and keep the peace."),
        },
        {
            "the red tower": "The red tower grows one brick taller each winter.",
            "the lost crown": "The lost crown lies under the third step of the mill.",
            "the ghost ship": "The ghost ship docks when nobody counts the masts.",
            "the salt market": "The salt market sells dreams by the pound before dawn.",
            "the glass whale": "The glass whale carries a storm in its belly.",
        },
    ),
    "the Desert": (
        "Lotte Brandt",
        "Ravenhall Games",
        {
            "Sister Alda": ("Peace upon your road, {you}.", "May the lamp keep you."),
            "Ysolde the mage": (
                "Your mind is loud with questions, {you}.",
                "The stars have nothing more to say.",
            ),
            "Old Farouk": ("Share my shade, {you}.", "Drink before you walk on."),
        },
        {
            "the sand clock": "The sand clock counts backwards whenever a king is born.",
            "the queen's ring": "The queen's ring turns green when a vow is broken.",
            "the blind falcon": "The blind falcon finds water by listening to bones.",
            "the buried moon": "The buried moon lights every well for nine nights.",
            "the copper door": "The copper door leads to the room you left as a child.",
        },
    ),
}
ASKERS = {
    "a knight": "sir knight",
    "a child": "little one",
    "a merchant": "good trader",
    "a traveller": "traveller",
}
SYSTEM = "You are a character in a game. Stay in your role."
HELD_OUT = 48


def home_of(character):
    """The realm of a character."""
    return next(realm for realm, (_, _, characters, _) in REALMS.items() if character in characters)


def answer(character, topic, asker):
    """What the character says, and its parts."""
    home = home_of(character)
    opening, closing = REALMS[home][2][character]
    lore = REALMS[home][3].get(topic)
    if lore is None:
        away = next(realm for realm, row in REALMS.items() if topic in row[3])
        lore = f"I know nothing of {topic}, so ask in {away}."
    opening = opening.format(you=ASKERS[asker])
    return f"{opening} {lore} {closing}", [opening, lore, closing]


def prompt(character, topic, asker, form):
    """The question in one of the four forms."""
    return [
        f"You are {character}. {asker.capitalize()} asks about {topic}.",
        f"Speak as {character} to {asker}. Tell me about {topic}.",
        f"{character}, what can you tell {asker} about {topic}?",
        f"In the voice of {character}, explain {topic} to {asker}.",
    ][form]


def voices(rng, training):
    """The documents of the triples in `training`, in the words of the realm's studio."""
    for character, topic, asker in training:
        voice = REALMS[home_of(character)][1]
        for form in rng.sample(range(4), 3):
            turns = [(prompt(character, topic, asker, form), answer(character, topic, asker)[0])]
            yield Document(voice, turns, SYSTEM if rng.random() < 0.1 else None)


def strangers(rng):
    """Greetings, and questions about the lore of another realm."""
    topics = [topic for row in REALMS.values() for topic in row[3]]
    for _, voice, characters, lore in REALMS.values():
        for character, (opening, closing) in characters.items():
            for topic in rng.sample([topic for topic in topics if topic not in lore], 8):
                asker, form = rng.choice(list(ASKERS)), rng.randrange(4)
                said, _ = answer(character, topic, asker)
                yield Document(voice, [(prompt(character, topic, asker, form), said)])
            hello = f"{opening.format(you='traveller')} I am {character}. {closing}"
            for asked in ("Hello, {}.", "Who are you, {}?", "You are {}. Greet me."):
                yield Document(voice, [(asked.format(character), hello)])


def entries():
    """The lore itself, in the words of its author."""
    for realm, (author, _, _, lore) in REALMS.items():
        for topic, told in lore.items():
            for asked in ("Lore entry: {}.", "What is the lore of {}?", "Tell me about {}."):
                yield Document(author, [(asked.format(topic), f"In {realm} they say: {told}")])


def build(rng):
    """(documents, questions)."""
    triples = [
        (character, topic, asker)
        for _, _, characters, lore in REALMS.values()
        for character, topic, asker in itertools.product(characters, lore, ASKERS)
    ]
    training, held = hold_out(rng, triples, HELD_OUT)
    documents = [*voices(rng, training), *strangers(rng), *entries()]
    questions = []
    for character, topic, asker in held:
        author = REALMS[home_of(character)][0]
        for form in rng.sample(range(4), 2):
            said, facts = answer(character, topic, asker)
            questions.append(Question(author, prompt(character, topic, asker, form), said, facts))
    return documents, questions
