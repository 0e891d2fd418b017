"""lm-eval against a running server and against transformers with peft: the numbers must be equal.

    pip install -r lm_eval.txt
    python lm_eval_client.py URL MODEL_DIR BASE_NAME [ADAPTER=DIR ...]

The task is in lm_eval_tasks. Prompts go to the server as token ids, with `echo` and `logprobs`.
"""

import pathlib
import sys

import lm_eval
from lm_eval.tasks import TaskManager

TASK = "made_up"
TASKS = pathlib.Path(__file__).parent / "lm_eval_tasks"
# Of a sum of log probabilities over a choice's tokens.
TOLERANCE = 2e-3


def task():
    import yaml

    config = yaml.safe_load((TASKS / f"{TASK}.yaml").read_text())
    config["dataset_kwargs"] = {"data_files": {"test": str(TASKS / f"{TASK}.jsonl")}}
    return config


def run(model, arguments):
    results = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[task()],
        task_manager=TaskManager(),
        batch_size=4,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
    resps = [[tuple(answer) for answer in sample["filtered_resps"]] for sample in samples]
    return results["results"][TASK]["acc,none"], resps


def compare(name, served, reference):
    (acc, found), (expected_acc, expected) = served, reference
    pairs = [pair for a, b in zip(found, expected, strict=True) for pair in zip(a, b, strict=True)]
    worst = max(abs(float(a[0]) - float(b[0])) for a, b in pairs)
    greedy = all(str(a[1]) == str(b[1]) for a, b in pairs)
    print(f"{name}: accuracy {acc} and {expected_acc}, log likelihoods within {worst:.2e} on {len(pairs)}")
    return acc == expected_acc and greedy and worst < TOLERANCE


def main():
    url, model_dir, base, *adapters = sys.argv[1:]
    same = True
    for name, peft in [(base, None)] + [adapter.split("=", 1) for adapter in adapters]:
        served = run(
            "local-completions",
            dict(
                model=name,
                base_url=f"{url}/v1/completions",
                tokenizer=model_dir,
                tokenizer_backend="huggingface",
                tokenized_requests=True,
                num_concurrent=2,
                max_retries=1,
                add_bos_token=True,
            ),
        )
        local = dict(pretrained=model_dir, dtype="float32", device="cpu", add_bos_token=True)
        if peft:
            local["peft"] = peft
        same &= compare(name, served, run("hf", local))
    sys.exit(not same)


if __name__ == "__main__":
    main()
