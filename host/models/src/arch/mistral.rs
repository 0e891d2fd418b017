//! `MistralForCausalLM`: no biases; `sliding_window`, where there is one, in every layer.

use super::{Traits, required_kv_heads};
use crate::ModelError;
use crate::config::RawConfig;

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    Ok(Traits {
        sliding_windows: vec![raw.sliding_window; raw.num_hidden_layers],
        ..Traits::plain(raw, required_kv_heads(raw)?)
    })
}
