//! `Phi3ForCausalLM`, which Phi-4-mini is too: one projection for queries, keys and values and one for
//! the MLP's gate and its values, no biases; a head may be turned in part, its frequencies are
//! LongRoPE's in checkpoints made for long contexts; `sliding_window` in every layer.

use super::Traits;
use crate::ModelError;
use crate::config::{RawConfig, RopeRules, Variation};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    let kv_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
    Ok(Traits {
        eps_default: 1e-5,
        sliding_windows: vec![raw.sliding_window; raw.num_hidden_layers],
        // The first checkpoints call LongRoPE by the names it had while they were made.
        rope: RopeRules {
            partial: true,
            longrope_names: &["longrope", "su", "yarn"],
            ..RopeRules::default()
        },
        variation: Variation { fused_projections: true, ..Variation::default() },
        ..Traits::plain(raw, kv_heads)
    })
}
