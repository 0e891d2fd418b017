//! GGML's names of a model's tensors and its order of their rows, for tests that write GGUF files. Knows no
//! architecture: which rows are turned about is for the caller to say.

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
