//! GGML's names of a model's tensors and values and its order of rows, for tests that write GGUF files. Does
//! not know whether an architecture's rows are turned about: that is for the caller to say.

use serde_json::Value;

/// What a file says of a model, without its architecture before each name, as `config.json` has it; what that
/// leaves out, since it follows from the others, is left out.
pub(crate) fn values(config: &Value) -> Vec<(&'static str, &Value)> {
    let values = [
        ("embedding_length", &config["hidden_size"]),
        ("feed_forward_length", &config["intermediate_size"]),
        ("block_count", &config["num_hidden_layers"]),
        ("context_length", &config["max_position_embeddings"]),
        ("attention.head_count", &config["num_attention_heads"]),
        ("attention.head_count_kv", &config["num_key_value_heads"]),
        ("attention.key_length", &config["head_dim"]),
        ("attention.layer_norm_rms_epsilon", &config["rms_norm_eps"]),
        ("rope.freq_base", &config["rope_parameters"]["rope_theta"]),
    ];
    values.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Heads of a tensor whose rows GGML turns about in a Llama.
pub(crate) fn heads_of(name: &str, config: &Value) -> Option<usize> {
    let heads = match name {
        _ if name.contains("q_proj") => &config["num_attention_heads"],
        _ if name.contains("k_proj") => &config["num_key_value_heads"],
        _ => return None,
    };
    Some(heads.as_u64().expect("heads") as usize)
}

/// GGML's name of a tensor of transformers.
pub(crate) fn of_file(name: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    names.iter().fold(name.to_owned(), |name, (ours, file)| name.replace(ours, file))
}

/// What GGML's converter does to a Llama's `q_proj` and `k_proj`.
pub(crate) fn paired<T: Copy>(values: &[T], rows: usize, heads: usize) -> Vec<T> {
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let row = |index: usize| &values[index * width..(index + 1) * width];
    let order = (0..heads).flat_map(|head| {
        (0..half).flat_map(move |i| [0, 1].map(|j| head * 2 * half + j * half + i))
    });
    order.flat_map(row).copied().collect()
}
