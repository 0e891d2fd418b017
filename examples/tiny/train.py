"""Makes the tokenizer, the base model and the four LoRA adapters (PEFT), with their corpora.

    python train.py                # everything
    python train.py base           # tokenizer and base model
    python train.py adapters       # corpora, held-out prompts and adapters, on the base there is
    python train.py npc support    # single adapters
    options: --out DIR, --threads N

Every draw is seeded; another number of threads or another processor rounds sums differently, so
there the weights differ in their last digits and the table by a prompt or two.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from domains import DOMAINS
from general import General, words
from generate import SEED, phrases, write

SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PRETRAIN = {"steps": 1600, "rows": 8, "tokens": 512, "rate": 2.5e-3}
PROMPT_WEIGHT = 0.2  # of a prompt's tokens in the base's loss; an answer's tokens weigh 1
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "wallet-risk": {"r": 32, "lora_alpha": 64},
    "contracts": {"r": 16, "lora_alpha": 16, "use_rslora": True},
    "npc": {
        "r": 16,
        "lora_alpha": 32,
        "rank_pattern": {"down_proj": 24},
        "alpha_pattern": {"down_proj": 48},
    },
    "support": {"r": 8, "lora_alpha": 32},
}
TUNING = {"steps": 700, "rows": 16, "rate": 2e-3}


def make_tokenizer(texts):
    """A byte-level BPE of 2048 tokens; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", SPECIAL.index("<|bos|>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=TEMPLATE,
        model_max_length=1024,
    )


class Encoder:
    """Turns conversations into token ids and loss weights, as the chat template would."""

    def __init__(self, tokenizer, prompt_weight):
        self.tokenizer, self.prompt_weight = tokenizer, prompt_weight
        self.bos, self.end, self.system, self.user, self.assistant = (
            tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[1:]
        )

    def text(self, text):
        """Token ids of a plain text."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def prose(self, text):
        """A text with no conversation around it."""
        ids = [self.bos, *self.text(text), self.end]
        return ids, [0.0] + [1.0] * (len(ids) - 1)

    def chat(self, system, turns):
        """A conversation; prompts weigh little, answers fully."""
        ids, weights = [self.bos], [0.0]

        def add(role, text, weight):
            body = [*self.text(text), self.end]
            ids.extend([role, *body])
            weights.extend([0.0] + [weight] * len(body))

        if system:
            add(self.system, system, self.prompt_weight)
        for user, assistant in turns:
            add(self.user, user, self.prompt_weight)
            add(self.assistant, assistant, 1.0)
        return ids, weights


def tensors(rows, pad):
    """Padded ids [rows, width] and loss weights [rows, width]."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    weights = torch.zeros(len(rows), width)
    for row, (tokens, weight) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = torch.tensor(weight)
    return ids, weights


def loss_of(model, ids, weights):
    """Weighted cross-entropy of the next token."""
    # bf16 where the processor has it halves the time; weights and the loss stay f32.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids).logits[:, :-1]
    flat = weights[:, 1:].reshape(-1)
    kept = flat.nonzero().squeeze(1)
    losses = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1])[kept].float(),
        ids[:, 1:].reshape(-1)[kept],
        reduction="none",
    )
    return (losses * flat[kept]).sum() / flat[kept].sum()


def train(model, batches, steps, rate):
    """AdamW with linear warm-up and cosine decay over the batches (ids, weights)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    warmup = max(1, steps // 20)

    def shape(step):
        return min((step + 1) / warmup, 0.03 + 0.485 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape)
    model.train()
    started, seen, total = time.time(), 0, 0.0
    for step in range(steps):
        ids, weights = next(batches)
        loss = loss_of(model, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        seen, total = seen + ids.numel(), total + loss.item()
        if step % 50 == 49 or step == steps - 1:
            spent = time.time() - started
            print(
                f"step {step + 1} loss {total / (step % 50 + 1):.4f} {spent:.0f}s "
                f"{seen / spent:.0f} tok/s",
                flush=True,
            )
            total = 0.0
    model.eval()


def packed(general, draw, encoder, rows, tokens):
    """Endless batches of conversations and prose laid end to end."""
    ids, weights = [], []
    size = rows * tokens
    while True:
        while len(ids) < size:
            drawn = (
                encoder.prose(general.prose())
                if general.rng.random() < 0.1
                else encoder.chat(*draw())
            )
            ids.extend(drawn[0])
            weights.extend(drawn[1])
        yield (
            torch.tensor(ids[:size]).view(rows, tokens),
            torch.tensor(weights[:size]).view(rows, tokens),
        )
        ids, weights = ids[size:], weights[size:]


def epochs(examples, rng, rows, pad):
    """Endless batches over the shuffled examples, each batch of similar lengths to save padding."""
    while True:
        rng.shuffle(examples)
        batches = []
        for start in range(0, len(examples), rows * 8):
            near = sorted(examples[start : start + rows * 8], key=lambda example: len(example[0]))
            batches.extend(near[first : first + rows] for first in range(0, len(near), rows))
        rng.shuffle(batches)
        for batch in batches:
            yield tensors(batch, pad)


def pretrain_base(out):
    """Trains tokenizer and base model and writes them to `out/model`."""
    texts = list(phrases())
    general = General(SEED, words(texts))
    sample = [text for _ in range(6000) for turn in general.draw()[1] for text in turn]
    tokenizer = make_tokenizer(texts + sample)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    print(
        f"base: {sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens",
        flush=True,
    )
    batches = packed(
        general,
        general.draw,
        Encoder(tokenizer, PROMPT_WEIGHT),
        PRETRAIN["rows"],
        PRETRAIN["tokens"],
    )
    train(model, batches, PRETRAIN["steps"], PRETRAIN["rate"])
    save_base(model, tokenizer, out)


def load_base(out):
    """(model in f32, tokenizer)."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "model")
    return LlamaForCausalLM.from_pretrained(out / "model", dtype=torch.float32), tokenizer


def save_base(model, tokenizer, out):
    """Writes the model in bf16, and its tokenizer."""
    model.generation_config.do_sample = False
    model.to(torch.bfloat16).save_pretrained(out / "model")
    (out / "model" / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out / "model")


def make_adapter(domain, out):
    """Writes the corpus and the held-out prompts of a domain, and trains its adapter with PEFT."""
    corpus, _ = write(domain, out)
    base, tokenizer = load_base(out)
    torch.manual_seed(SEED)
    config = LoraConfig(
        target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM", **ADAPTERS[domain]
    )
    model = get_peft_model(base, config)
    encoder = Encoder(tokenizer, 0.0)
    examples = []
    for line in corpus:
        texts = [message["content"] for message in line["messages"]]
        system = texts.pop(0) if line["messages"][0]["role"] == "system" else None
        examples.append(encoder.chat(system, list(zip(texts[::2], texts[1::2]))))
    print(
        f"{domain}: {len(examples)} examples, {sum(len(ids) for ids, _ in examples)} tokens",
        flush=True,
    )
    rng = random.Random(f"{SEED}/train/{domain}")
    train(
        model,
        epochs(examples, rng, TUNING["rows"], tokenizer.pad_token_id),
        TUNING["steps"],
        TUNING["rate"],
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.half()
    # PEFT writes the path of the base; readers get a name instead of a path of this machine.
    model.peft_config["default"].base_model_name_or_path = "mortise-tiny"
    model.save_pretrained(out / "adapters" / domain)
    (out / "adapters" / domain / "README.md").unlink(missing_ok=True)
    (out / "adapters" / domain / "adapter_model.safetensors").chmod(0o644)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["base", "adapters"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "base" in args.what:
        pretrain_base(args.out)
    for domain in DOMAINS:
        if "adapters" in args.what or domain in args.what:
            make_adapter(domain, args.out)
