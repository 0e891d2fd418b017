//! `Qwen3ForCausalLM`: queries and keys are normed per head; heads are 128 wide unless the file says
//! otherwise, whatever `hidden_size` is.

use super::{Traits, qwen_windows, required_kv_heads};
use crate::ModelError;
use crate::config::{RawConfig, Variation};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    let attention_bias = raw.attention_bias.unwrap_or(false);
    Ok(Traits {
        head_dim_default: Some(128),
        sliding_windows: qwen_windows(raw)?,
        variation: Variation {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            qk_norm: true,
            ..Variation::default()
        },
        ..Traits::plain(raw, required_kv_heads(raw)?)
    })
}
