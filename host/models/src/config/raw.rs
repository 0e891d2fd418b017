//! `config.json` and `generation_config.json` with Hugging Face's keys, and their resolution.
//!
//! Defaults are those of the configuration classes of transformers, per architecture.

use serde::Deserialize;
use serde_json::Value;

use super::rope::rope_config;
use super::{Architecture, ModelConfig};
use crate::ModelError;

/// Largest value accepted for a size in the configuration. No model comes near it, and products of
/// three sizes stay inside 64 bits.
const SIZE_MAX: usize = 1 << 20;

/// One id, or a list of ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    fn to_vec(&self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
        }
    }
}

/// The keys of `generation_config.json` that we use.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawGenerationConfig {
    eos_token_id: Option<TokenIds>,
    bos_token_id: Option<u32>,
}

/// The keys of `config.json` that we use, or refuse.
#[derive(Debug, Deserialize)]
pub(super) struct RawConfig {
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f32>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_scaling: Option<Value>,
    pub(super) rope_parameters: Option<Value>,
    pub(super) partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<Value>,
    eos_token_id: Option<TokenIds>,
    bos_token_id: Option<TokenIds>,
}

impl RawConfig {
    pub(super) fn resolve(
        &self,
        generation: Option<&RawGenerationConfig>,
    ) -> Result<ModelConfig, ModelError> {
        let architecture = self.architecture()?;
        self.refuse_unsupported()?;
        let heads = self.num_attention_heads;
        let kv_heads = match (self.num_key_value_heads, architecture) {
            (Some(kv_heads), _) => kv_heads,
            (None, Architecture::Llama) => heads,
            (None, _) => return Err(invalid("num_key_value_heads", "the key is missing")),
        };
        for (key, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", self.head_dim.unwrap_or(2)),
        ] {
            if size == 0 || size > SIZE_MAX {
                return Err(invalid(key, format!("{size} is not within 1 and {SIZE_MAX}")));
            }
        }
        if heads % kv_heads != 0 {
            return Err(invalid(
                "num_key_value_heads",
                format!("{kv_heads} does not divide {heads}"),
            ));
        }
        let positions = self.max_position_embeddings;
        if positions == 0 || u32::try_from(positions).is_err() {
            return Err(invalid("max_position_embeddings", format!("{positions} is out of range")));
        }
        let head_dim = self.head_dim(architecture)?;
        let attention_bias = self.attention_bias.unwrap_or(false);
        let (qkv_bias, output_bias) = match architecture {
            Architecture::Llama | Architecture::Qwen3 => (attention_bias, attention_bias),
            Architecture::Mistral => (false, false),
            Architecture::Qwen2 => (true, false),
        };
        Ok(ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            max_position_embeddings: positions,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope: rope_config(self, head_dim)?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            qkv_bias,
            output_bias,
            mlp_bias: architecture == Architecture::Llama && self.mlp_bias.unwrap_or(false),
            qk_norm: architecture == Architecture::Qwen3,
            sliding_windows: self.sliding_windows(architecture)?,
            eos_token_ids: self.eos_token_ids(generation),
            bos_token_id: generation.and_then(|generation| generation.bos_token_id).or_else(|| {
                self.bos_token_id.as_ref().and_then(|ids| ids.to_vec().first().copied())
            }),
        })
    }

    fn architecture(&self) -> Result<Architecture, ModelError> {
        let names = self.architectures.as_deref().unwrap_or_default();
        let known = Architecture::ALL
            .into_iter()
            .find(|architecture| names.iter().any(|name| name == architecture.class_name()));
        known.ok_or_else(|| ModelError::Unsupported {
            key: "architectures",
            value: names.join(", "),
            hint: "; supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and \
                   Qwen3ForCausalLM",
        })
    }

    fn refuse_unsupported(&self) -> Result<(), ModelError> {
        // transformers calls the same function `swish` in places.
        if let Some(name) =
            self.hidden_act.as_deref().filter(|name| !["silu", "swish"].contains(name))
        {
            return Err(ModelError::Unsupported {
                key: "hidden_act",
                value: name.to_owned(),
                hint: "; supported is silu",
            });
        }
        if let Some(quantization) =
            self.quantization_config.as_ref().filter(|value| !value.is_null())
        {
            let method = quantization.get("quant_method").and_then(Value::as_str);
            return Err(ModelError::Unsupported {
                key: "quantization_config",
                value: method.unwrap_or("unnamed").to_owned(),
                hint: "; supported are f32, f16 and bf16 checkpoints",
            });
        }
        Ok(())
    }

    fn head_dim(&self, architecture: Architecture) -> Result<usize, ModelError> {
        let heads = self.num_attention_heads;
        let head_dim = match (self.head_dim, architecture) {
            (Some(head_dim), _) => head_dim,
            (None, Architecture::Qwen3) => 128,
            (None, _) if self.hidden_size % heads == 0 => self.hidden_size / heads,
            (None, _) => {
                let reason = format!("{heads} does not divide hidden_size {}", self.hidden_size);
                return Err(invalid("num_attention_heads", reason));
            }
        };
        if head_dim % 2 != 0 {
            return Err(invalid("head_dim", format!("{head_dim} is odd")));
        }
        Ok(head_dim)
    }

    fn sliding_windows(
        &self,
        architecture: Architecture,
    ) -> Result<Vec<Option<usize>>, ModelError> {
        let layers = self.num_hidden_layers;
        let window = self.sliding_window;
        if window == Some(0) {
            return Err(invalid("sliding_window", "0 leaves nothing to attend to"));
        }
        if architecture == Architecture::Llama {
            return Ok(vec![None; layers]);
        }
        if architecture == Architecture::Mistral {
            return Ok(vec![window; layers]);
        }
        let window = window.filter(|_| self.use_sliding_window.unwrap_or(false));
        if let Some(types) = &self.layer_types {
            if types.len() != layers {
                let reason = format!("{} entries for {layers} layers", types.len());
                return Err(invalid("layer_types", reason));
            }
            let of_type = |name: &String| match name.as_str() {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(window),
                other => Err(ModelError::Unsupported {
                    key: "layer_types",
                    value: other.to_owned(),
                    hint: "; supported are full_attention and sliding_attention",
                }),
            };
            return types.iter().map(of_type).collect();
        }
        let first = self.max_window_layers.unwrap_or(28);
        Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
    }

    fn eos_token_ids(&self, generation: Option<&RawGenerationConfig>) -> Vec<u32> {
        let ids = generation
            .and_then(|generation| generation.eos_token_id.as_ref())
            .or(self.eos_token_id.as_ref());
        ids.map(TokenIds::to_vec).unwrap_or_default()
    }
}

pub(super) fn invalid(key: &'static str, reason: impl Into<String>) -> ModelError {
    ModelError::Config { key, reason: reason.into() }
}
