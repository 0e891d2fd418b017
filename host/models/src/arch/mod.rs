//! What sets the architectures apart: one file each, read from the keys of `config.json`.

pub(crate) mod gemma2;
pub(crate) mod gemma3;
pub(crate) mod llama;
pub(crate) mod mistral;
pub(crate) mod phi3;
pub(crate) mod qwen2;
pub(crate) mod qwen3;
pub(crate) mod qwen3_moe;

use crate::ModelError;
use crate::config::{Experts, RawConfig, RopeRules, Variation, invalid};

/// What an architecture makes of a configuration, where they differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traits {
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Width of a head where the file does not say; `None` for `hidden_size / heads`.
    pub(crate) head_dim_default: Option<usize>,
    /// `rms_norm_eps` where the file does not say.
    pub(crate) eps_default: f32,
    /// `tie_word_embeddings` where the file does not say.
    pub(crate) tie_default: bool,
    /// Window per layer.
    pub(crate) sliding_windows: Vec<Option<usize>>,
    /// What may be said of the rotary embedding.
    pub(crate) rope: RopeRules,
    /// What the layers are made of.
    pub(crate) variation: Variation,
    /// Experts, where there are any.
    pub(crate) experts: Option<Experts>,
}

impl Traits {
    /// What most architectures have: nothing that another lacks.
    fn plain(raw: &RawConfig, kv_heads: usize) -> Self {
        Self {
            kv_heads,
            head_dim_default: None,
            eps_default: 1e-6,
            tie_default: false,
            sliding_windows: vec![None; raw.num_hidden_layers],
            rope: RopeRules::default(),
            variation: Variation::default(),
            experts: None,
        }
    }
}

/// Key heads of an architecture whose class in transformers has a default of its own: a file
/// without the key means that default, which no checkpoint relies on.
fn required_kv_heads(raw: &RawConfig) -> Result<usize, ModelError> {
    raw.num_key_value_heads.ok_or_else(|| invalid("num_key_value_heads", "the key is missing"))
}

/// Windows of the Qwen family: `layer_types` where the file has it, else all layers from
/// `max_window_layers` on; none unless `use_sliding_window`.
fn qwen_windows(raw: &RawConfig) -> Result<Vec<Option<usize>>, ModelError> {
    let window = raw.sliding_window.filter(|_| raw.use_sliding_window.unwrap_or(false));
    let first = raw.max_window_layers.unwrap_or(28);
    let sliding = layers_that_slide(raw, |layer| layer >= first)?;
    Ok(sliding.into_iter().map(|sliding| window.filter(|_| sliding)).collect())
}

/// Which layers have a window: as `layer_types` says, or `otherwise` where the file does not have it.
fn layers_that_slide(
    raw: &RawConfig,
    otherwise: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let layers = raw.num_hidden_layers;
    let Some(types) = &raw.layer_types else {
        return Ok((0..layers).map(otherwise).collect());
    };
    if types.len() != layers {
        return Err(invalid("layer_types", format!("{} entries, {layers} layers", types.len())));
    }
    let slides = |name: &String| match name.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        other => Err(ModelError::Unsupported {
            key: "layer_types",
            value: other.to_owned(),
            hint: "; supported are full_attention and sliding_attention",
        }),
    };
    types.iter().map(slides).collect()
}
