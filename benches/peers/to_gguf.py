"""Writes GGUF files from Hugging Face directories of Llamas and from PEFT directories.

    python to_gguf.py model DIR OUT.gguf
    python to_gguf.py adapters BASE_DIR DIR OUT_DIR    # each directory in DIR becomes a file

Models come out in f16 with norms in f32, ready for llama-quantize. Tensors are read and written one
at a time. What a GGUF can't say is refused: biases, adapters of mixed ranks, tokenizers other than
byte-level BPE.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np

MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class Tensors:
    """The tensors of a directory's safetensors files, read when asked for."""

    def __init__(self, paths):
        self.entries = {}
        for path in paths:
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                self.entries[name] = (path, 8 + size, entry)

    def shape(self, name):
        return self.entries[name][2]["shape"]

    def read(self, name):
        """As f32 or f16."""
        path, start, entry = self.entries[name]
        if entry["dtype"] not in DTYPES:
            sys.exit(f"{path}: {name} is {entry['dtype']}, not one of {', '.join(DTYPES)}")
        begin, end = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        count = (end - begin) // dtype.itemsize
        values = np.fromfile(path, dtype, count, offset=start + begin).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def heads_of(config, name):
    """Heads over which llama.cpp permutes a module's rows; 0 if it does not."""
    query = config["num_attention_heads"]
    if name.endswith("self_attn.q_proj"):
        return query
    if name.endswith("self_attn.k_proj"):
        return config.get("num_key_value_heads") or query
    return 0


def permute(rows, heads):
    """From halves of each head, as Hugging Face rotates them, to llama.cpp's neighbouring pairs."""
    if heads == 0:
        return rows
    pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def gguf_name(module):
    """GGUF's name of `model.layers.N.<module>`, None if it has none."""
    parts = module.split(".")
    if parts[:2] != ["model", "layers"] or ".".join(parts[3:]) not in MODULES:
        return None
    return f"blk.{parts[2]}.{MODULES['.'.join(parts[3:])]}.weight"


def write(writer, plan):
    """`plan`: name, shape, dtype and a function that gives the values, of each tensor."""
    for name, shape, dtype, _ in plan:
        dtype = np.dtype(dtype)
        writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, _, dtype, values in plan:
        writer.write_tensor_data(np.ascontiguousarray(values(), dtype=dtype))
    writer.close()


def pre_tokenizer(tokenizer):
    """llama.cpp's name of how a text is cut before merging."""
    pre = json.dumps(tokenizer.get("pre_tokenizer") or {})
    if '"use_regex": true' in pre and '"Split"' not in pre and '"Digits"' not in pre:
        return "gpt-2"
    if "\\\\p{N}{1,3}" in pre:
        return "llama-bpe"
    return sys.exit("the pre-tokenizer is not known here; name it with --pre")


def add_vocabulary(writer, folder, size, pre):
    tokenizer = read_json(folder / "tokenizer.json")
    if tokenizer["model"].get("type") != "BPE" or "ByteLevel" not in json.dumps(tokenizer["decoder"]):
        sys.exit(f"{folder}: tokenizer.json is not byte-level BPE")
    # An id that nothing stands for still needs a written form of its own.
    tokens = [f"<unused{index}>" for index in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], kinds[index] = token, gguf.TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        tokens[token["id"]], kinds[token["id"]] = token["content"], kind
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    settings = read_json(folder / "tokenizer_config.json")
    post = json.dumps(tokenizer.get("post_processor") or {})
    for key, add in [
        ("bos_token", writer.add_bos_token_id),
        ("eos_token", writer.add_eos_token_id),
        ("pad_token", writer.add_pad_token_id),
    ]:
        token = settings.get(key)
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            add(tokens.index(token))
        if key == "bos_token":
            writer.add_add_bos_token(token is not None and json.dumps(token) in post)
    template = folder / "chat_template.jinja"
    text = template.read_text() if template.exists() else settings.get("chat_template")
    if text:
        writer.add_chat_template(text)


def add_sizes(writer, config):
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    rope = config.get("rope_parameters") or {}
    scaled = rope.get("rope_type", "default") != "default" or config.get("rope_scaling")
    if scaled or config.get("attention_bias") or config.get("mlp_bias"):
        sys.exit("scaled rotary embeddings and biases are not converted here")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def checked_config(folder):
    config = read_json(folder / "config.json")
    if config.get("architectures") != ["LlamaForCausalLM"]:
        sys.exit(f"{folder} is not a LlamaForCausalLM")
    return config


def convert_model(folder, out, pre):
    config = checked_config(folder)
    tensors = Tensors(sorted(folder.glob("*.safetensors")))
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(folder.resolve().name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_sizes(writer, config)
    add_vocabulary(writer, folder, config["vocab_size"], pre)
    plan = []
    for name in tensors.entries:
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        module = name.removesuffix(".weight")
        target = OUTER.get(name) or gguf_name(module)
        if target is None:
            sys.exit(f"{folder}: no place in a GGUF for {name}")
        shape, heads = tensors.shape(name), heads_of(config, module)
        dtype = np.float32 if len(shape) == 1 else np.float16
        read = lambda name=name, heads=heads: permute(tensors.read(name), heads)
        plan.append((target, shape, dtype, read))
    write(writer, plan)


def convert_adapter(base, folder, out):
    config, peft = checked_config(base), read_json(folder / "adapter_config.json")
    for key in ["rank_pattern", "alpha_pattern", "use_dora", "modules_to_save", "lora_bias"]:
        if peft.get(key):
            sys.exit(f"{folder}: {key} has no place in a GGUF")
    # llama.cpp scales by alpha / rank.
    alpha = peft["lora_alpha"] * (peft["r"] ** 0.5 if peft.get("use_rslora") else 1.0)
    tensors = Tensors([folder / "adapter_model.safetensors"])
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    plan = []
    for name in tensors.entries:
        module, _, part = name.removesuffix(".weight").rpartition(".lora_")
        module = module.removeprefix("base_model.model.")
        target = gguf_name(module)
        if target is None or part not in ("A", "B"):
            sys.exit(f"{folder}: no place in a GGUF for {name}")
        heads = heads_of(config, module) if part == "B" else 0
        read = lambda name=name, heads=heads: permute(tensors.read(name), heads)
        plan.append((f"{target}.lora_{part.lower()}", tensors.shape(name), np.float16, read))
    write(writer, plan)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    model = kinds.add_parser("model")
    model.add_argument("dir", type=Path)
    model.add_argument("out", type=Path)
    model.add_argument("--pre", help="llama.cpp's name of the pre-tokenizer")
    adapters = kinds.add_parser("adapters")
    adapters.add_argument("base", type=Path)
    adapters.add_argument("dir", type=Path)
    adapters.add_argument("out", type=Path)
    adapters.add_argument("--count", type=int, help="how many of them, in the order of names")
    args = parser.parse_args()
    if args.kind == "model":
        convert_model(args.dir, args.out, args.pre)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        for path in sorted(args.dir.glob("*/adapter_config.json"))[: args.count]:
            convert_adapter(args.base, path.parent, args.out / f"{path.parent.name}.gguf")


if __name__ == "__main__":
    main()
