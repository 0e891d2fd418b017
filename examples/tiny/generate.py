"""Writes the corpora and the held-out prompts of the domains.

    python generate.py [--out DIR]

They go to `adapters/<domain>/corpus.jsonl` and `heldout/<domain>.jsonl`. A corpus holds exactly
the conversations that its adapter is trained on, each with the contributor who owns it. No prompt
of `heldout` is in a corpus.
"""

import argparse
import json
import random
from pathlib import Path

from domains import DOMAINS

SEED = 20261121
HELD_OUT_MAX = 100


def build(domain):
    """(documents, questions) of a domain, shuffled, the same for every run."""
    rng = random.Random(f"{SEED}/{domain}")
    documents, questions = DOMAINS[domain](rng)
    rng.shuffle(documents)
    rng.shuffle(questions)
    return documents, questions[:HELD_OUT_MAX]


def phrases():
    """Every text of the domains, for the tokenizer and for the base model's word lists."""
    for domain in DOMAINS:
        for document in build(domain)[0]:
            for turn in document.turns:
                yield from turn


def write_lines(path, lines):
    """Writes one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write(domain, out):
    """Writes the corpus and the held-out prompts of a domain and returns both."""
    documents, questions = build(domain)
    corpus = [
        {
            "id": f"{domain}-{number:04}",
            "contributor": document.contributor,
            "messages": document.messages(),
        }
        for number, document in enumerate(documents)
    ]
    asked = {message["content"] for line in corpus for message in line["messages"]}
    held = [
        {
            "messages": [{"role": "user", "content": question.prompt}],
            "expected": question.expected,
            "facts": question.facts,
            "contributor": question.contributor,
        }
        for question in questions
    ]
    leaked = [line for line in held if line["messages"][0]["content"] in asked]
    assert not leaked, f"{domain}: held-out prompts in the corpus: {leaked[:3]}"
    write_lines(out / "adapters" / domain / "corpus.jsonl", corpus)
    write_lines(out / "heldout" / f"{domain}.jsonl", held)
    return corpus, held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    for domain in DOMAINS:
        corpus, held = write(domain, out)
        contributors = {line["contributor"] for line in corpus}
        print(
            f"{domain}: {len(corpus)} documents of {len(contributors)} contributors, "
            f"{len(held)} held out"
        )
