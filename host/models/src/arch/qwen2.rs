//! `Qwen2ForCausalLM`: q, k and v always have a bias, the output projection never.

use super::{Traits, qwen_windows, required_kv_heads};
use crate::ModelError;
use crate::config::{RawConfig, Variation};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    Ok(Traits {
        sliding_windows: qwen_windows(raw)?,
        variation: Variation { qkv_bias: true, ..Variation::default() },
        ..Traits::plain(raw, required_kv_heads(raw)?)
    })
}
