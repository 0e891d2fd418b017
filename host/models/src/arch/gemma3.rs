//! `Gemma3ForCausalLM`, the text model: as Gemma 2 without a limit of scores; queries and keys are normed
//! per head; of six layers five have a window, and a rope of their own.

use super::{Traits, gemma2, layers_that_slide};
use crate::ModelError;
use crate::config::{RawConfig, RopeRules, Variation, invalid};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    // transformers reads the key and does nothing with it.
    if let Some(cap) = raw.attn_logit_softcapping.flatten() {
        return Err(ModelError::Unsupported {
            key: "attn_logit_softcapping",
            value: cap.to_string(),
            hint: "; supported is null",
        });
    }
    let pattern = raw.sliding_window_pattern.unwrap_or(6);
    if pattern == 0 {
        return Err(invalid("sliding_window_pattern", "0 is no pattern"));
    }
    let sliding = layers_that_slide(raw, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let plain = gemma2::family(raw, sliding)?;
    let logits_softcap = raw.final_logit_softcapping.flatten();
    Ok(Traits {
        rope: RopeRules { local: true, ..RopeRules::default() },
        variation: Variation {
            qk_norm: true,
            logits_softcap: gemma2::cap("final_logit_softcapping", logits_softcap)?,
            ..plain.variation
        },
        ..plain
    })
}
