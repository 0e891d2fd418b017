//! From the name of an architecture to what it is: one arm per architecture.

use std::fmt;
use std::path::Path;

use crate::arch::{Traits, gemma2, gemma3, llama, mistral, phi3, qwen2, qwen3, qwen3_moe};
use crate::config::{ModelConfig, RawConfig};
use crate::layers::decoder::Decoder;
use crate::parallel::split::Split;
use crate::parallel::{DividedModel, Part};
use crate::weights::Weights;
use crate::{CausalLm, LoadOptions, ModelError};

/// The architectures we implement, by the class name of transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// `LlamaForCausalLM`
    Llama,
    /// `MistralForCausalLM`
    Mistral,
    /// `Qwen2ForCausalLM`
    Qwen2,
    /// `Qwen3ForCausalLM`
    Qwen3,
    /// `Qwen3MoeForCausalLM`
    Qwen3Moe,
    /// `Phi3ForCausalLM`
    Phi3,
    /// `Gemma2ForCausalLM`
    Gemma2,
    /// `Gemma3ForCausalLM`
    Gemma3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Phi3,
        Self::Gemma2,
        Self::Gemma3,
    ];

    /// Class name in `architectures` of `config.json`.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// All class names, for a message.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::class_name).join(", ")
    }

    /// What it makes of a configuration.
    pub(crate) fn traits(self, raw: &RawConfig) -> Result<Traits, ModelError> {
        match self {
            Self::Llama => llama::traits(raw),
            Self::Mistral => mistral::traits(raw),
            Self::Qwen2 => qwen2::traits(raw),
            Self::Qwen3 => qwen3::traits(raw),
            Self::Qwen3Moe => qwen3_moe::traits(raw),
            Self::Phi3 => phi3::traits(raw),
            Self::Gemma2 => gemma2::traits(raw),
            Self::Gemma3 => gemma3::traits(raw),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class_name())
    }
}

/// Loads the model of a Hugging Face directory (`config.json`, `generation_config.json` where there
/// is one, `model.safetensors` or `model.safetensors.index.json` with its shards), or of a GGUF file.
/// Packs on all processors.
///
/// # Errors
/// A file that can't be read or is torn, a configuration that is not supported, a tensor that is
/// missing or of the wrong shape; each names the file and the key or tensor.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Box<dyn CausalLm>, ModelError> {
    if path.is_file() {
        let (weights, metadata) = Weights::open_gguf(path)?;
        let config = ModelConfig::from_gguf(path, metadata, options.context_tokens_max)?;
        return of(config, &weights, options);
    }
    let config = ModelConfig::for_context(path, options.context_tokens_max)?;
    let weights = Weights::open(path)?;
    of(config, &weights, options)
}

fn of(
    config: ModelConfig,
    weights: &Weights,
    options: &LoadOptions,
) -> Result<Box<dyn CausalLm>, ModelError> {
    Ok(match options.parallel {
        Some(parallel) => Box::new(DividedModel::load(config, weights, (options, parallel))?),
        None => {
            let (split, shape) = (&Split::whole(&config), &config.model_shape());
            let whole = Part { split, shape, ranks: None };
            Box::new(Decoder::load(config, weights, (options, whole))?)
        }
    })
}
