//! `Gemma2ForCausalLM`: outputs of attention and the MLP are normed too, by weights to which one is
//! added; embeddings are scaled up and tied; scores and logits have soft limits; every second layer,
//! from the first on, has a window.

use super::{Traits, layers_that_slide, required_kv_heads};
use crate::ModelError;
use crate::config::{Activation, RawConfig, Variation, invalid};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    let attention_softcap = raw.attn_logit_softcapping.unwrap_or(Some(50.0));
    let logits_softcap = raw.final_logit_softcapping.unwrap_or(Some(30.0));
    let plain = family(raw, layers_that_slide(raw, |layer| layer.is_multiple_of(2))?)?;
    Ok(Traits {
        variation: Variation {
            attention_softcap: cap("attn_logit_softcapping", attention_softcap)?,
            logits_softcap: cap("final_logit_softcapping", logits_softcap)?,
            ..plain.variation
        },
        ..plain
    })
}

/// What the second and the third generation share.
pub(super) fn family(raw: &RawConfig, sliding: Vec<bool>) -> Result<Traits, ModelError> {
    if raw.use_bidirectional_attention == Some(true) {
        return Err(ModelError::Unsupported {
            key: "use_bidirectional_attention",
            value: true.to_string(),
            hint: "; supported is false",
        });
    }
    let attention_bias = raw.attention_bias.unwrap_or(false);
    let scalar = raw.query_pre_attn_scalar.unwrap_or(256.0);
    if !(scalar.is_finite() && scalar > 0.0) {
        return Err(invalid("query_pre_attn_scalar", format!("{scalar} is not above 0")));
    }
    let window = |slides: bool| match (slides, raw.sliding_window) {
        (false, _) => Ok(None),
        (true, Some(window)) => Ok(Some(window)),
        (true, None) => Err(invalid("sliding_window", "the key is missing")),
    };
    Ok(Traits {
        head_dim_default: Some(256),
        tie_default: true,
        sliding_windows: sliding.into_iter().map(window).collect::<Result<_, _>>()?,
        variation: Variation {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            activation: Activation::GeluTanh,
            unit_offset_norms: true,
            output_norms: true,
            scaled_embedding: true,
            attention_scale: Some(scalar.powf(-0.5) as f32),
            ..Variation::default()
        },
        ..Traits::plain(raw, required_kv_heads(raw)?)
    })
}

/// A soft limit that makes sense.
pub(super) fn cap(key: &'static str, cap: Option<f64>) -> Result<Option<f32>, ModelError> {
    let cap = cap.map(|cap| cap as f32);
    match cap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
        Some(cap) => Err(invalid(key, format!("{cap} is not above 0"))),
        None => Ok(cap),
    }
}
