"""Scores the base and each adapter on the held-out prompts and prints a markdown table.

    python evaluate.py                                # transformers + peft, on this machine
    python evaluate.py --url http://127.0.0.1:8080    # an OpenAI-compatible server, stdlib only
    options: --base NAME (the server's name of the base), --limit N, --api-key KEY, --show N,
             --threads N, --data DIR

Decoding is greedy. "Exact" counts answers equal to the expected text; "facts" is the share of the
facts an answer must state that it does state. "In domain" counts answers most of whose three-word
runs occur in the answers of the domain's own corpus: they speak the domain's language, right or
wrong.
"""

import argparse
import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOKENS_MAX = 160
IN_FLIGHT_MAX = 8


def read_lines(path):
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class Server:
    """Asks an OpenAI-compatible server; the model's name picks base or adapter."""

    def __init__(self, url, base, api_key):
        self.url, self.base, self.api_key = url.rstrip("/"), base, api_key

    def call(self, path, body=None):
        """The JSON reply to a GET, or to a POST of `body`."""
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url + path, data, headers), timeout=120
            ) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise SystemExit(f"{self.url}{path}: {error.code} {said}") from error

    def base_name(self, domains):
        """The base's name: as told, or the first model listed that is no adapter of ours."""
        if self.base:
            return self.base
        listed = [model["id"] for model in self.call("/v1/models")["data"]]
        return next(
            name for name in listed if name not in domains and ":" not in name and name != "auto"
        )

    def answers(self, model, questions):
        """The answers of `model` to the questions, some in flight at once."""

        def ask(question):
            body = {
                "model": model,
                "messages": question["messages"],
                "temperature": 0,
                "max_tokens": TOKENS_MAX,
            }
            return self.call("/v1/chat/completions", body)["choices"][0]["message"]["content"]

        with ThreadPoolExecutor(IN_FLIGHT_MAX) as pool:
            return list(pool.map(ask, questions))


class Local:
    """Runs transformers and peft here."""

    def __init__(self, data, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch, self.data = torch, data
        self.tokenizer = AutoTokenizer.from_pretrained(data / "model", padding_side="left")
        self.load = lambda: AutoModelForCausalLM.from_pretrained(
            data / "model", dtype=torch.float32
        )

    def base_name(self, _):
        """None stands for the base."""
        return None

    def model(self, name):
        """The base, or the base under an adapter."""
        if name is None:
            return self.load()
        from peft import PeftModel

        return PeftModel.from_pretrained(self.load(), self.data / "adapters" / name)

    def answers(self, name, questions):
        """The answers of the base or an adapter to the questions."""
        model, said = self.model(name).eval(), []
        for start in range(0, len(questions), 25):
            chats = [question["messages"] for question in questions[start : start + 25]]
            texts = self.tokenizer.apply_chat_template(
                chats, tokenize=False, add_generation_prompt=True
            )
            inputs = self.tokenizer(
                texts, return_tensors="pt", padding=True, add_special_tokens=False
            )
            inputs.pop("token_type_ids", None)
            with self.torch.no_grad():
                out = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS_MAX)
            said += self.tokenizer.batch_decode(
                out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
        return said


def score(questions, answers):
    """(exact, facts) as shares of 1."""
    exact = sum(answer == question["expected"] for question, answer in zip(questions, answers))
    stated = wanted = 0
    for question, answer in zip(questions, answers):
        stated += sum(fact in answer for fact in question["facts"])
        wanted += len(question["facts"])
    return exact / len(questions), stated / wanted


def phrases(text):
    """The runs of three words in a text."""
    words = re.findall(r"[a-z']+", text.lower())
    return list(zip(words, words[1:], words[2:]))


def domain_phrases(data, domain):
    """Every run of three words in the answers of the domain's corpus."""
    return {
        phrase
        for line in read_lines(data / "adapters" / domain / "corpus.jsonl")
        for message in line["messages"]
        if message["role"] == "assistant"
        for phrase in phrases(message["content"])
    }


def in_domain(known, answers):
    """Share of answers whose three-word runs mostly occur in the domain's corpus."""
    good = 0
    for answer in answers:
        said = phrases(answer)
        good += 2 * sum(phrase in known for phrase in said) > max(len(said), 1)
    return good / len(answers)


def main():
    """Reads the options, asks every model and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="server to ask instead of running the model here")
    parser.add_argument("--base", help="the server's name of the base model")
    parser.add_argument("--api-key")
    parser.add_argument("--limit", type=int, default=None, help="questions per domain")
    parser.add_argument("--show", type=int, default=0, help="print this many answers per adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    domains = sorted(path.stem for path in (args.data / "heldout").glob("*.jsonl"))
    runner = (
        Server(args.url, args.base, args.api_key) if args.url else Local(args.data, args.threads)
    )
    base = runner.base_name(domains)
    print(
        "| Adapter | Prompts | Base exact | Adapter exact | Base facts | Adapter facts "
        "| Base in domain | Adapter in domain |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for domain in domains:
        questions = read_lines(args.data / "heldout" / f"{domain}.jsonl")[: args.limit]
        plain, tuned = runner.answers(base, questions), runner.answers(domain, questions)
        known = domain_phrases(args.data, domain)
        cells = [
            100 * share
            for pair in zip(score(questions, plain), score(questions, tuned))
            for share in pair
        ]
        cells += [100 * in_domain(known, said) for said in (plain, tuned)]
        print(
            f"| {domain} | {len(questions)} | "
            + " | ".join(f"{cell:.0f} %" for cell in cells)
            + " |",
            flush=True,
        )
        for question, before, after in list(zip(questions, plain, tuned))[: args.show]:
            print(
                f"\n> {question['messages'][-1]['content']}\nbase: {before}\n{domain}: {after}\n"
                f"expected: {question['expected']}\n"
            )


if __name__ == "__main__":
    main()
