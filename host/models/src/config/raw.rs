//! `config.json` and `generation_config.json` with Hugging Face's keys, and their resolution.
//!
//! Defaults are those of the configuration classes of transformers, per architecture.

use std::num::NonZeroUsize;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rope::rope_configs;
use super::{Activation, ModelConfig};
use crate::{Architecture, ModelError};

/// Largest value accepted for a size in the configuration. No model comes near it, and products of
/// three sizes stay inside 64 bits.
const SIZE_MAX: usize = 1 << 20;
/// Most layers accepted.
const LAYERS_MAX: usize = 1024;

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
pub(crate) struct RawConfig {
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    pub(super) max_position_embeddings: usize,
    pub(super) original_max_position_embeddings: Option<f64>,
    rms_norm_eps: Option<f32>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_local_base_freq: Option<f64>,
    pub(super) rope_scaling: Option<Value>,
    pub(super) rope_parameters: Option<Value>,
    pub(super) partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    pub(crate) attention_bias: Option<bool>,
    pub(crate) mlp_bias: Option<bool>,
    pub(crate) sliding_window: Option<usize>,
    pub(crate) use_sliding_window: Option<bool>,
    pub(crate) max_window_layers: Option<usize>,
    pub(crate) layer_types: Option<Vec<String>>,
    pub(crate) sliding_window_pattern: Option<usize>,
    pub(crate) use_bidirectional_attention: Option<bool>,
    pub(crate) query_pre_attn_scalar: Option<f64>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) attn_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) final_logit_softcapping: Option<Option<f64>>,
    pub(crate) num_experts: Option<usize>,
    pub(crate) num_local_experts: Option<usize>,
    pub(crate) num_experts_per_tok: Option<usize>,
    pub(crate) moe_intermediate_size: Option<usize>,
    pub(crate) norm_topk_prob: Option<bool>,
    pub(crate) decoder_sparse_step: Option<usize>,
    pub(crate) mlp_only_layers: Option<Vec<usize>>,
    quantization_config: Option<Value>,
    eos_token_id: Option<TokenIds>,
    bos_token_id: Option<TokenIds>,
}

impl RawConfig {
    pub(super) fn resolve(
        &self,
        generation: Option<&RawGenerationConfig>,
        context_tokens_max: Option<NonZeroUsize>,
    ) -> Result<ModelConfig, ModelError> {
        let architecture = self.architecture()?;
        self.refuse_unsupported()?;
        self.check_sizes()?;
        let traits = architecture.traits(self)?;
        self.check_activation(traits.variation.activation)?;
        let (heads, kv_heads) = (self.num_attention_heads, traits.kv_heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} does not divide num_attention_heads {heads}");
            return Err(invalid("num_key_value_heads", reason));
        }
        let head_dim = self.head_dim(traits.head_dim_default)?;
        let positions = self.max_position_embeddings;
        let positions = context_tokens_max.map_or(positions, |most| positions.min(most.get()));
        let (rope, local_rope) = rope_configs(self, head_dim, traits.rope, positions)?;
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
            rms_norm_eps: self.rms_norm_eps.unwrap_or(traits.eps_default),
            rope,
            local_rope,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(traits.tie_default),
            sliding_windows: traits.sliding_windows,
            variation: traits.variation,
            experts: traits.experts,
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
        known.ok_or_else(|| ModelError::Architecture { found: names.join(", ") })
    }

    fn check_sizes(&self) -> Result<(), ModelError> {
        for (key, size, most) in [
            ("vocab_size", self.vocab_size, SIZE_MAX),
            ("hidden_size", self.hidden_size, SIZE_MAX),
            ("intermediate_size", self.intermediate_size, SIZE_MAX),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS_MAX),
            ("num_attention_heads", self.num_attention_heads, SIZE_MAX),
            ("head_dim", self.head_dim.unwrap_or(2), SIZE_MAX),
            ("max_position_embeddings", self.max_position_embeddings, u32::MAX as usize),
            ("num_experts", self.num_experts.or(self.num_local_experts).unwrap_or(1), SIZE_MAX),
            ("moe_intermediate_size", self.moe_intermediate_size.unwrap_or(1), SIZE_MAX),
            ("sliding_window", self.sliding_window.unwrap_or(1), usize::MAX),
        ] {
            if size == 0 || size > most {
                return Err(invalid(key, format!("{size} is not within 1 and {most}")));
            }
        }
        Ok(())
    }

    fn check_activation(&self, activation: Activation) -> Result<(), ModelError> {
        // transformers calls the same function `swish` in places, and Gemma reads a key of its own.
        let (key, found, known, hint): (_, _, &[&str], _) = match activation {
            Activation::Silu => {
                ("hidden_act", &self.hidden_act, &["silu", "swish"], "; supported is silu")
            }
            Activation::GeluTanh => (
                "hidden_activation",
                &self.hidden_activation,
                &["gelu_pytorch_tanh"],
                "; supported is gelu_pytorch_tanh",
            ),
        };
        match found {
            Some(name) if !known.contains(&name.as_str()) => {
                Err(ModelError::Unsupported { key, value: name.clone(), hint })
            }
            _ => Ok(()),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ModelError> {
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

    fn head_dim(&self, default: Option<usize>) -> Result<usize, ModelError> {
        let heads = self.num_attention_heads;
        let head_dim = match self.head_dim.or(default) {
            Some(head_dim) => head_dim,
            None if self.hidden_size.is_multiple_of(heads) => self.hidden_size / heads,
            None => {
                let reason = format!("{heads} does not divide hidden_size {}", self.hidden_size);
                return Err(invalid("num_attention_heads", reason));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(invalid("head_dim", format!("{head_dim} is odd")));
        }
        Ok(head_dim)
    }

    fn eos_token_ids(&self, generation: Option<&RawGenerationConfig>) -> Vec<u32> {
        let ids = generation
            .and_then(|generation| generation.eos_token_id.as_ref())
            .or(self.eos_token_id.as_ref());
        ids.map(TokenIds::to_vec).unwrap_or_default()
    }
}

/// A key that may be missing, which means a default, or null, which does not.
fn nullable<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(source).map(Some)
}

pub(crate) fn invalid(key: &'static str, reason: impl Into<String>) -> ModelError {
    ModelError::Config { key, reason: reason.into() }
}
