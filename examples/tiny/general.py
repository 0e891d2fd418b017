"""General text for the base model: small talk, stories with questions, copying, and sums.

It teaches the chat format, plain sentences and how to read a prompt. It teaches none of the
domains' tasks: their words occur only in lists to be repeated or looked up.
"""

import random
import re

NAMES = (
    "Ada Ben Cleo Dov Elif Finn Gita Hugo Iris Jonas "
    "Kira Leo Mina Nils Olga Paul Rita Sven Uma Vera"
).split()
THINGS = (
    "book apple lamp basket kite map drum coat bottle ladder clock spoon chair bell rope letter"
).split()
PLACES = (
    "garden kitchen harbour library market station barn school bakery tower valley bridge".split()
)
COLOURS = "red blue green yellow white black brown silver".split()
ANIMALS = "dog cat horse goose fox owl rabbit goat".split()
MOODS = "happy tired hungry proud quiet curious calm brave".split()
TIMES = [
    "In the morning",
    "At noon",
    "After the rain",
    "One evening",
    "Before supper",
    "On the next day",
]
ENDINGS = [
    "Everyone slept well that night.",
    "And that was the end of it.",
    "They laughed about it for years.",
    "From then on they were friends.",
]
SYSTEMS = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer in short sentences.",
    "You are a helpful assistant that runs on Mortise.",
    "Be kind and clear.",
]
UNSURE = [
    "I am not sure about that. I can tell a story or answer a simple question.",
    "I do not know much about that. Would you like a story?",
    "That is beyond me. I am a small model for small talk.",
]
SMALL_TALK = [
    (("Hello.", "Hello", "Hello!", "Hey.", "Hi"), "Hello! How can I help you today?"),
    (("Hi there!", "Hi there"), "Hi! What would you like to talk about?"),
    (("Good morning.", "Good morning!"), "Good morning! I hope the day is kind to you."),
    (("Good evening.", "Good evening!"), "Good evening! Was it a good day?"),
    (("How are you?", "How are you today?"), "I am well, thank you. How are you?"),
    (
        ("Who are you?", "What are you?", "What is your name?"),
        "I am a small language model that runs on Mortise.",
    ),
    (
        ("What can you do?", "How can you help me?"),
        "I can chat, tell short stories, repeat words and answer simple questions.",
    ),
    (("Thank you.", "Thanks!", "Thanks."), "You are welcome."),
    (("Goodbye.", "Bye.", "See you later."), "Goodbye, and take care."),
    (
        ("Tell me a joke.", "Make me laugh."),
        "Why did the clock go to school? It wanted to be on time.",
    ),
    (("I am bored.", "What shall I do?"), "Then let me tell you a story about a fox or a lamp."),
    (
        ("Do you know everything?", "Are you clever?"),
        "No, I know only a little, but I read carefully.",
    ),
    (("Can you count?", "Count to five."), "One, two, three, four, five."),
    (
        ("What colours do you know?",),
        "I know red, blue, green, yellow, white, black, brown and silver.",
    ),
    (("Which animals do you like?",), "I like the dog, the cat, the owl and the goose."),
]


def words(texts):
    """The distinct words of `texts`, in order of first use."""
    seen = {}
    for text in texts:
        for word in re.findall(r"[A-Za-z0-9']+", text):
            seen.setdefault(word)
    return list(seen)


class General:
    """Draws conversations as lists of (user, assistant) turns."""

    def __init__(self, seed, vocabulary):
        self.rng = random.Random(f"{seed}/general")
        # Codes are drawn fresh each time; the vocabulary is for plain words.
        self.vocabulary = [word for word in vocabulary if not any(c.isdigit() for c in word)]
        self.kinds = [
            self.talk,
            self.story,
            self.story,
            self.question,
            self.question,
            self.repeat,
            self.repeat,
            self.repeat,
            self.order,
            self.lookup,
            self.lookup,
            self.lookup,
            self.number,
            self.code,
            self.code,
            self.quote,
        ]

    def draw(self):
        """One conversation: (system text or None, turns)."""
        turns = [self.turn()]
        while self.rng.random() < 0.15:
            turns.append(self.turn())
        return self.rng.choice(SYSTEMS) if self.rng.random() < 0.2 else None, turns

    def turn(self):
        """One exchange; a share of them the model should admit it cannot meet."""
        return self.unsure() if self.rng.random() < 0.15 else self.rng.choice(self.kinds)()

    def prose(self):
        """Plain text with no conversation around it."""
        return self.tale(self.rng.choice(ANIMALS + THINGS))

    def pick(self, *tables):
        """One of each table."""
        return [self.rng.choice(table) for table in tables]

    def some_words(self, low, high):
        """`low` to `high` loose words."""
        return " ".join(
            self.rng.choice(self.vocabulary) for _ in range(self.rng.randint(low, high))
        )

    def some_code(self):
        """A short hexadecimal code or a number."""
        size = self.rng.randint(2, 5)
        return self.rng.choice(
            [
                "0x" + "".join(self.rng.choice("0123456789abcdef") for _ in range(size)),
                str(self.rng.randint(2, 99999)),
            ]
        )

    def talk(self):
        """Small talk."""
        asked, answer = self.rng.choice(SMALL_TALK)
        return self.rng.choice(asked), answer

    def sentence(self):
        """A plain sentence."""
        name, colour, thing, place, mood, animal = self.pick(
            NAMES, COLOURS, THINGS, PLACES, MOODS, ANIMALS
        )
        time = self.rng.choice(TIMES)
        return self.rng.choice(
            [
                f"{name} carried the {colour} {thing} to the {place}.",
                f"The {animal} in the {place} was {mood} all day.",
                f"{name} was {mood} and went to the {place} with a {animal}.",
                f"A {colour} {animal} slept beside the {thing}.",
                f"{name} gave the {thing} to a {mood} friend near the {place}.",
                f"{time} {name} found a {thing} in the {place}.",
                f"{time} the {colour} {thing} was still there.",
            ]
        )

    def tale(self, topic):
        """A short tale about `topic`."""
        hero, place, mood = self.pick(NAMES, PLACES, MOODS)
        lines = [
            f"Once there was a {topic} in the {place}.",
            f"{hero} was {mood} when the {topic} came along.",
            f"{self.rng.choice(TIMES)} {hero} took the {topic} home.",
            self.sentence(),
            self.rng.choice(ENDINGS),
        ]
        return " ".join(line for line in lines if self.rng.random() < 0.85)

    def story(self):
        """A story on request."""
        topic = self.rng.choice(ANIMALS + THINGS)
        asked = self.rng.choice(
            [
                "Tell me a story about a {}.",
                "A story about a {}, please.",
                "Do you know a tale of a {}?",
            ]
        )
        return asked.format(topic), self.tale(topic)

    def question(self):
        """A question about a sentence that was just said."""
        name, colour, thing, place = self.pick(NAMES, COLOURS, THINGS, PLACES)
        asked, answer = self.rng.choice(
            [
                ("Who has it?", f"{name} has it."),
                ("What colour is it?", f"It is {colour}."),
                ("Where is it?", f"It is in the {place}."),
                ("What is it?", f"It is a {thing}."),
            ]
        )
        said = f"{name} left a {colour} {thing} in the {place}."
        extra = [self.sentence() for _ in range(self.rng.randint(0, 2))]
        return " ".join(extra + [said, asked]), answer

    def repeat(self):
        """Words to say again."""
        text = self.some_words(2, 14)
        return self.rng.choice(["Repeat: ", "Say this: ", "Copy these words: "]) + text, text

    def quote(self):
        """A line to be said from its beginning."""
        head, tail = self.some_words(1, 4), self.some_words(1, 6)
        return f"Finish the line. The line is: {head} {tail}. It begins: {head}", f"{head} {tail}."

    def code(self):
        """The code of one of several owners."""
        codes = [self.some_code() for _ in range(self.rng.randint(1, 3))]
        owners = self.rng.sample(NAMES + THINGS, len(codes))
        index = self.rng.randrange(len(codes))
        told = " ".join(f"The code of {owner} is {code}." for owner, code in zip(owners, codes))
        asked = self.rng.choice(["What is the code of {}?", "Which code has {}?"]).format(
            owners[index]
        )
        return f"{told} {asked}", f"The code of {owners[index]} is {codes[index]}."

    def unsure(self):
        """A request out of loose words, and the answer of one who does not know."""
        said, more = self.some_words(2, 9), self.some_words(1, 4)
        if self.rng.random() < 0.5:
            more = f"{more} {self.some_code()}, {self.some_words(1, 3)} {self.rng.randint(0, 999)}"
        asked = self.rng.choice(
            [
                f"What is the {said} like?",
                f"Tell me about the {said}.",
                f"How do I {said}?",
                f"Why is the {said} so {more}?",
                f"{said.capitalize()}: {more}.",
                f"{said.capitalize()}. {more.capitalize()}?",
                f"{said.capitalize()}?",
            ]
        )
        return asked, self.rng.choice(UNSURE)

    def order(self):
        """The first or second of two words."""
        first, second = self.rng.sample(self.vocabulary, 2)
        asked, answer = self.rng.choice([("first", first), ("second", second)])
        return f"The words are {first} and {second}. Which is the {asked} word?", f"It is {answer}."

    def lookup(self):
        """The value of one of several keys."""
        keys = self.rng.sample(self.vocabulary, self.rng.randint(2, 4))
        values = [self.rng.choice(self.vocabulary) for _ in keys]
        index = self.rng.randrange(len(keys))
        listed = ", ".join(f"{key} is {value}" for key, value in zip(keys, values))
        return f"{listed}. What is {keys[index]}?", f"{keys[index]} is {values[index]}."

    def number(self):
        """Whether a number is below another."""
        value = self.rng.choice([self.rng.randint(0, 30), self.rng.randint(31, 999)])
        limit = self.rng.choice([20, 50, 100, 500])
        said = "below" if value < limit else "not below"
        return f"Is {value} below {limit}?", f"{value} is {said} {limit}."
