"""What a domain is made of: documents to train on and questions held out of training."""


class Document:
    """One training exchange and the contributor who owns it."""

    def __init__(self, contributor, turns, system=None):
        self.contributor, self.turns, self.system = contributor, turns, system

    def messages(self):
        """The exchange as chat messages."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        for user, assistant in self.turns:
            head.append({"role": "user", "content": user})
            head.append({"role": "assistant", "content": assistant})
        return head


class Question:
    """One held-out prompt, its only right answer, and the facts that the answer must state."""

    def __init__(self, contributor, prompt, expected, facts):
        self.contributor, self.prompt, self.expected, self.facts = (
            contributor,
            prompt,
            expected,
            facts,
        )


def hold_out(rng, keys, count):
    """Splits `keys` into (training, held out) sets."""
    keys = sorted(keys)
    rng.shuffle(keys)
    return keys[count:], keys[:count]
