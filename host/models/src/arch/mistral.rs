//! `MistralForCausalLM`: no biases; `sliding_window`, where there is one, in every layer.

use super::{Traits, required_kv_heads};
use crate::ModelError;
use crate::config::RawConfig;

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    Ok(Traits {
        kv_heads: required_kv_heads(raw)?,
        head_dim_default: None,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding_windows: vec![raw.sliding_window; raw.num_hidden_layers],
    })
}
