"""lm-eval against a running server and against transformers with peft: the numbers must be equal.

    pip install -r lm_eval.txt
    python lm_eval_client.py URL MODEL_DIR BASE_NAME [ADAPTER=DIR ...]

Prompts go to the server as token ids, with `echo` and `logprobs`. Two tasks: questions that nobody trained on
(lm_eval_tasks), and, where the demo's model is served, prompts kept from an adapter's training, through the
chat template: which of three answers is that prompt's. Accuracies must be equal, log likelihoods of
every choice within TOLERANCE of their size, and which of them is what the model would say of itself the same. The server
keeps keys and values in f32 for this (`--kv-cache-dtype f32`), as transformers does.
"""

import json
import pathlib
import sys
import tempfile

import lm_eval
from lm_eval.tasks import TaskManager

TASKS = pathlib.Path(__file__).parent / "lm_eval_tasks"
HELDOUT = pathlib.Path(__file__).parents[2] / "examples/tiny/heldout"
# Of a sum of log probabilities over a choice's tokens, by its size (at least 1). Sums in f32 in another order
# are as far apart.
TOLERANCE = 2e-5


def made_up():
    return "made_up", TASKS / "made_up.jsonl", False


def kept(domain, folder):
    """Prompts of a domain, each with its own answer and those of two others."""
    lines = [json.loads(line) for line in (HELDOUT / f"{domain}.jsonl").open(encoding="utf-8")]
    answers = [line["expected"] for line in lines]
    path = pathlib.Path(folder) / f"{domain}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for index, line in enumerate(lines):
            place = index % 3
            choices = [answers[(index + 7 * (other - place)) % len(answers)] for other in range(3)]
            entry = {"question": line["messages"][0]["content"], "choices": choices, "answer": place}
            file.write(json.dumps(entry) + "\n")
    return domain.replace("-", "_"), path, True


def run(model, arguments, task):
    import yaml

    name, path, templated = task
    config = yaml.safe_load((TASKS / "made_up.yaml").read_text())
    config |= {"task": name, "dataset_kwargs": {"data_files": {"test": str(path)}}}
    if templated:
        # The template ends where the answer begins.
        config["target_delimiter"] = ""
    results = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[config],
        task_manager=TaskManager(),
        batch_size=4,
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=templated,
    )
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    resps = [[tuple(answer) for answer in sample["filtered_resps"]] for sample in samples]
    return results["results"][name]["acc,none"], resps


def compare(name, served, reference):
    (acc, found), (expected_acc, expected) = served, reference
    pairs = [pair for a, b in zip(found, expected, strict=True) for pair in zip(a, b, strict=True)]
    apart = [abs(float(a[0]) - float(b[0])) for a, b in pairs]
    by_size = [gap / max(1.0, abs(float(b[0]))) for gap, (_, b) in zip(apart, pairs, strict=True)]
    greedy = sum(str(b[1]) == "True" for _, b in pairs)
    alike = all(str(a[1]) == str(b[1]) for a, b in pairs)
    print(
        f"{name}: accuracy {acc:.4f} and {expected_acc:.4f}; {len(pairs)} log likelihoods from"
        f" {min(float(b[0]) for _, b in pairs):.1f} on, at most {max(apart):.1e} apart,"
        f" {max(by_size):.1e} by size; {greedy} greedy{'' if alike else ', NOT THE SAME'}"
    )
    return acc == expected_acc and alike and max(by_size) < TOLERANCE


def main():
    url, model_dir, base, *adapters = sys.argv[1:]
    adapters = [adapter.split("=", 1) for adapter in adapters]
    same = True
    with tempfile.TemporaryDirectory() as folder:
        tasks = [made_up()]
        tasks += [kept(name, folder) for name, _ in adapters if (HELDOUT / f"{name}.jsonl").exists()]
        for name, peft in [(base, None)] + adapters:
            served = dict(
                model=name,
                base_url=f"{url}/v1/completions",
                tokenizer=model_dir,
                tokenizer_backend="huggingface",
                tokenized_requests=True,
                num_concurrent=2,
                max_retries=1,
            )
            local = dict(pretrained=model_dir, dtype="float32", device="cpu")
            if peft:
                local["peft"] = peft
            for task in tasks:
                # A chat template writes the first token itself.
                first = dict(add_bos_token=not task[2])
                found = run("local-completions", served | first, task)
                expected = run("hf", local | first, task)
                same &= compare(f"{task[0]}, {name}", found, expected)
    sys.exit(not same)


if __name__ == "__main__":
    main()
