//! What sets the architectures apart: one file each, read from the keys of `config.json`.

pub(crate) mod llama;
pub(crate) mod mistral;
pub(crate) mod qwen2;
pub(crate) mod qwen3;

use crate::ModelError;
use crate::config::{RawConfig, invalid};

/// What an architecture makes of a configuration, where they differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traits {
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Width of a head where the file does not say; `None` for `hidden_size / heads`.
    pub(crate) head_dim_default: Option<usize>,
    /// Bias on q, k and v.
    pub(crate) qkv_bias: bool,
    /// Bias on the output projection.
    pub(crate) output_bias: bool,
    /// Bias in the MLP.
    pub(crate) mlp_bias: bool,
    /// Norm of queries and keys.
    pub(crate) qk_norm: bool,
    /// Window per layer.
    pub(crate) sliding_windows: Vec<Option<usize>>,
}

/// Key heads of an architecture whose class in transformers has a default of its own: a file
/// without the key means that default, which no checkpoint relies on.
fn required_kv_heads(raw: &RawConfig) -> Result<usize, ModelError> {
    raw.num_key_value_heads.ok_or_else(|| invalid("num_key_value_heads", "the key is missing"))
}

/// Windows of the Qwen family: `layer_types` where the file has it, else all layers from
/// `max_window_layers` on; none unless `use_sliding_window`.
fn qwen_windows(raw: &RawConfig) -> Result<Vec<Option<usize>>, ModelError> {
    let layers = raw.num_hidden_layers;
    let window = raw.sliding_window.filter(|_| raw.use_sliding_window.unwrap_or(false));
    let Some(types) = &raw.layer_types else {
        let first = raw.max_window_layers.unwrap_or(28);
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    if types.len() != layers {
        return Err(invalid("layer_types", format!("{} entries, {layers} layers", types.len())));
    }
    let window_of = |name: &String| match name.as_str() {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(window),
        other => Err(ModelError::Unsupported {
            key: "layer_types",
            value: other.to_owned(),
            hint: "; supported are full_attention and sliding_attention",
        }),
    };
    types.iter().map(window_of).collect()
}
