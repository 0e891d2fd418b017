//! `Qwen2ForCausalLM`: q, k and v always have a bias, the output projection never.

use super::{Traits, qwen_windows, required_kv_heads};
use crate::ModelError;
use crate::config::RawConfig;

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    Ok(Traits {
        kv_heads: required_kv_heads(raw)?,
        head_dim_default: None,
        qkv_bias: true,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding_windows: qwen_windows(raw)?,
    })
}
