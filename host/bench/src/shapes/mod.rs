//! Models of named sizes with random weights, and adapters for them, in the files that Hugging Face
//! and PEFT write. For measuring speed: what such a model says means nothing.
//!
//! Parts: `draw` (seeded weights), `tensors` (safetensors, streamed), `vocabulary` (a tokenizer in
//! which every word is one token), `model` and `adapters` (whole directories).

mod adapters;
mod draw;
mod model;
mod tensors;
mod vocabulary;

use std::path::Path;

use serde_json::{Value, json};

use crate::BenchError;

pub(crate) use adapters::WEIGHTS_FILE;
pub use adapters::{AdapterPlan, MadeAdapters, adapter_name, make_adapters};
pub use draw::Dtype;
pub use model::make_model;
pub use vocabulary::{FIRST_WORD, word};

/// Linear modules of one layer, as adapters name them.
pub const TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Most positions of a made model.
const POSITIONS: usize = 8192;

/// The sizes of a Llama.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub ffn: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Whether `lm_head` is the embedding.
    pub tied: bool,
}

/// Names of the shapes that [`Shape::named`] knows.
pub const NAMES: [&str; 3] = ["tiny-100m", "llama-1b", "llama-8b"];

impl Shape {
    /// The shape of a name: `tiny-100m`, `llama-1b` (Llama 3.2 1B) or `llama-8b` (Llama 3.1 8B).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let shape = |hidden, layers, heads, kv_heads, head_dim| Self {
            hidden,
            layers,
            heads,
            kv_heads,
            head_dim,
            ffn: 0,
            vocab: 128_256,
            tied: true,
        };
        Some(match name {
            "tiny-100m" => Self { ffn: 2048, vocab: 32_000, ..shape(768, 12, 12, 4, 64) },
            "llama-1b" => Self { ffn: 8192, ..shape(2048, 16, 32, 8, 64) },
            "llama-8b" => Self { ffn: 14_336, tied: false, ..shape(4096, 32, 32, 8, 128) },
            _ => return None,
        })
    }

    /// A named shape, or that of a model's directory with a Llama `config.json`.
    ///
    /// # Errors
    /// Neither a name nor a directory with such a file.
    pub fn of(name_or_dir: &str) -> Result<Self, BenchError> {
        if let Some(shape) = Self::named(name_or_dir) {
            return Ok(shape);
        }
        let path = Path::new(name_or_dir).join("config.json");
        if !path.is_file() {
            let reason = format!(
                "{name_or_dir:?} is neither one of {} nor a model's directory",
                NAMES.join(", ")
            );
            return Err(BenchError::setting("shape", reason));
        }
        let text = std::fs::read(&path).map_err(BenchError::io("read", &path))?;
        let config: Value = serde_json::from_slice(&text)
            .map_err(|error| BenchError::File { path: path.clone(), reason: error.to_string() })?;
        Self::from_config(&config).map_err(|reason| BenchError::File { path, reason })
    }

    fn from_config(config: &Value) -> Result<Self, String> {
        let size = |key: &str| {
            let value = config[key].as_u64().and_then(|value| usize::try_from(value).ok());
            value.filter(|value| *value > 0).ok_or_else(|| format!("{key} is no positive number"))
        };
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let kv_heads = if config["num_key_value_heads"].is_null() {
            heads
        } else {
            size("num_key_value_heads")?
        };
        let head_dim =
            if config["head_dim"].is_null() { hidden / heads } else { size("head_dim")? };
        Ok(Self {
            hidden,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            ffn: size("intermediate_size")?,
            vocab: size("vocab_size")?,
            tied: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        })
    }

    /// `config.json`, with keys that versions 4 and 5 of transformers both read.
    fn config(&self, dtype: Dtype) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "vocab_size": self.vocab,
            "tie_word_embeddings": self.tied,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": vocabulary::BOS,
            "eos_token_id": vocabulary::EOS,
            "torch_dtype": dtype.name(),
        })
    }

    /// Inputs and outputs of a linear module, `None` for a name that is not in [`TARGETS`].
    #[must_use]
    pub fn module(&self, target: &str) -> Option<Module> {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let (block, inputs, outputs) = match target {
            "q_proj" => ("self_attn", self.hidden, q),
            "k_proj" | "v_proj" => ("self_attn", self.hidden, kv),
            "o_proj" => ("self_attn", q, self.hidden),
            "gate_proj" | "up_proj" => ("mlp", self.hidden, self.ffn),
            "down_proj" => ("mlp", self.ffn, self.hidden),
            _ => return None,
        };
        Some(Module { block, inputs, outputs })
    }
}

/// One linear module of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// The part of the layer that it is in.
    pub block: &'static str,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

#[cfg(test)]
mod tests;
