//! What a model is: `config.json` as transformers 4 and 5 write it, resolved and checked.
//!
//! `raw` has the keys as they stand in the file; [`ModelConfig`] is what the rest of the crate
//! uses. A key whose effect is not implemented is refused by name, never ignored.

mod raw;
mod rope;
mod variation;

use std::num::NonZeroUsize;
use std::path::Path;

use lora::{ModelShape, ModuleShape};

use crate::{Architecture, ModelError};
use raw::RawGenerationConfig;

pub(crate) use raw::{RawConfig, invalid};
pub(crate) use rope::RopeRules;
pub use variation::{Activation, Experts, Variation};

/// A resolved configuration: nothing optional is left to guess.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, even.
    pub head_dim: usize,
    /// Positions the model was made for, or as many as were asked for.
    pub max_position_embeddings: usize,
    /// Added under the root of each norm.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: kernels::RopeConfig,
    /// Rotary embedding of the layers that have a window, where it is another.
    pub local_rope: Option<kernels::RopeConfig>,
    /// Whether `lm_head` is the embedding.
    pub tie_word_embeddings: bool,
    /// Positions a token may look back to, itself included, per layer; `None` for all.
    pub sliding_windows: Vec<Option<usize>>,
    /// What the layers are made of.
    pub variation: Variation,
    /// Experts, where there are any.
    pub experts: Option<Experts>,
    /// Tokens that end a sequence: those of `generation_config.json`, else of `config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
}

impl ModelConfig {
    /// Reads `config.json` and, where there is one, `generation_config.json`.
    ///
    /// # Errors
    /// A file that can't be read or parsed; a key whose value is not supported or contradicts
    /// another.
    pub fn from_dir(dir: &Path) -> Result<Self, ModelError> {
        Self::for_context(dir, None)
    }

    /// As [`ModelConfig::from_dir`], for contexts of at most so many tokens.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn for_context(
        dir: &Path,
        context_tokens_max: Option<NonZeroUsize>,
    ) -> Result<Self, ModelError> {
        let raw: RawConfig = read_json(&dir.join("config.json"))?;
        raw.resolve(generation_config(dir)?.as_ref(), context_tokens_max)
    }

    /// Resolves the metadata of a GGUF file, and `generation_config.json` beside it where there is one.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub(crate) fn from_gguf(
        path: &Path,
        metadata: serde_json::Value,
        context_tokens_max: Option<NonZeroUsize>,
    ) -> Result<Self, ModelError> {
        let parsed = serde_json::from_value(metadata);
        let raw: RawConfig =
            parsed.map_err(|source| ModelError::Parse { path: path.to_owned(), source })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        raw.resolve(generation_config(dir)?.as_ref(), context_tokens_max)
    }

    /// The modules that adapters may name. Experts are none, as they are none to PEFT: an adapter that
    /// has tensors for them is refused.
    #[must_use]
    pub fn model_shape(&self) -> ModelShape {
        let mut modules = Vec::new();
        let mut add = |path: String, (in_features, out_features), adaptable| {
            let cuts = Vec::new();
            modules.push(ModuleShape { path, in_features, out_features, adaptable, cuts });
        };
        for layer in 0..self.layers {
            let mut add = |(name, sizes), adaptable| {
                add(format!("model.layers.{layer}.{name}"), sizes, adaptable);
            };
            self.attention_modules().into_iter().for_each(|module| add(module, true));
            match self.experts_of(layer) {
                Some(experts) => add(("mlp.gate", (self.hidden_size, experts.count)), false),
                None => self.mlp_modules().into_iter().for_each(|module| add(module, true)),
            }
        }
        add("model.embed_tokens".to_owned(), (self.vocab_size, self.hidden_size), false);
        add("lm_head".to_owned(), (self.hidden_size, self.vocab_size), false);
        ModelShape { modules }
    }

    /// Experts of a layer, if that is what it has.
    pub(crate) fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| experts.layers[layer])
    }

    /// Linear modules of attention with their inputs and outputs, in the order of the model.
    fn attention_modules(&self) -> Vec<(&'static str, (usize, usize))> {
        let hidden = self.hidden_size;
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut modules = match self.variation.fused_projections {
            true => vec![("self_attn.qkv_proj", (hidden, q + 2 * kv))],
            false => vec![
                ("self_attn.q_proj", (hidden, q)),
                ("self_attn.k_proj", (hidden, kv)),
                ("self_attn.v_proj", (hidden, kv)),
            ],
        };
        modules.push(("self_attn.o_proj", (q, hidden)));
        modules
    }

    /// The same of an MLP.
    fn mlp_modules(&self) -> Vec<(&'static str, (usize, usize))> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let mut modules = match self.variation.fused_projections {
            true => vec![("mlp.gate_up_proj", (hidden, 2 * inner))],
            false => vec![("mlp.gate_proj", (hidden, inner)), ("mlp.up_proj", (hidden, inner))],
        };
        modules.push(("mlp.down_proj", (inner, hidden)));
        modules
    }
}

fn generation_config(dir: &Path) -> Result<Option<RawGenerationConfig>, ModelError> {
    let path = dir.join("generation_config.json");
    match path.try_exists() {
        Ok(true) => read_json(&path).map(Some),
        Ok(false) => Ok(None),
        Err(source) => Err(ModelError::Read { path, source }),
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text =
        std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| ModelError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
