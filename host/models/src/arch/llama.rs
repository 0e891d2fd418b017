//! `LlamaForCausalLM`: `attention_bias` counts for all four projections, `mlp_bias` for the MLP; no
//! window; as many key heads as query heads unless the file says otherwise.

use super::Traits;
use crate::ModelError;
use crate::config::{RawConfig, Variation};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    let attention_bias = raw.attention_bias.unwrap_or(false);
    let kv_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
    Ok(Traits {
        variation: Variation {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            ..Variation::default()
        },
        ..Traits::plain(raw, kv_heads)
    })
}
