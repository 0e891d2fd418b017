//! What a model is: `config.json` as transformers 4 and 5 write it, resolved and checked.
//!
//! `raw` has the keys as they stand in the file; [`ModelConfig`] is what the rest of the crate
//! uses. A key whose effect is not implemented is refused by name, never ignored.

mod raw;
mod rope;

use std::path::Path;

use lora::{ModelShape, ModuleShape};

use crate::{Architecture, ModelError};
use raw::RawGenerationConfig;

pub(crate) use raw::{RawConfig, invalid};

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
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Added under the root of each norm.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: kernels::RopeConfig,
    /// Whether `lm_head` is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Whether the MLP's projections have a bias.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed per head.
    pub qk_norm: bool,
    /// Positions a token may look back to, itself included, per layer; `None` for all.
    pub sliding_windows: Vec<Option<usize>>,
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
        let raw: RawConfig = read_json(&dir.join("config.json"))?;
        raw.resolve(generation_config(dir)?.as_ref())
    }

    /// Resolves the metadata of a GGUF file, and `generation_config.json` beside it where there is one.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub(crate) fn from_gguf(path: &Path, metadata: serde_json::Value) -> Result<Self, ModelError> {
        let parsed = serde_json::from_value(metadata);
        let raw: RawConfig =
            parsed.map_err(|source| ModelError::Parse { path: path.to_owned(), source })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        raw.resolve(generation_config(dir)?.as_ref())
    }

    /// The modules that adapters may name.
    #[must_use]
    pub fn model_shape(&self) -> ModelShape {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let module = |path: String, in_features, out_features, adaptable| ModuleShape {
            path,
            in_features,
            out_features,
            adaptable,
        };
        let mut modules = Vec::with_capacity(self.layers * LAYER_MODULES.len() + 2);
        for layer in 0..self.layers {
            let sizes = [
                (hidden, q),
                (hidden, kv),
                (hidden, kv),
                (q, hidden),
                (hidden, inner),
                (hidden, inner),
                (inner, hidden),
            ];
            for (name, (inputs, outputs)) in LAYER_MODULES.iter().zip(sizes) {
                modules.push(module(format!("model.layers.{layer}.{name}"), inputs, outputs, true));
            }
        }
        modules.push(module("model.embed_tokens".to_owned(), self.vocab_size, hidden, false));
        modules.push(module("lm_head".to_owned(), hidden, self.vocab_size, false));
        ModelShape { modules }
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

/// Linear modules of one layer; their order fixes the indices that adapters use.
pub const LAYER_MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text =
        std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|source| ModelError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
