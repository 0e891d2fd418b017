//! GGUF files as checkpoints: their metadata as the keys of `config.json`, their tensors by the names of
//! transformers, their rows in the order of transformers.
//!
//! GGML rotates neighbouring pairs of a head in Llamas, and so their files have the rows of `q_proj` and
//! `k_proj` in another order. They are put back when the file is opened: then adapters, whose rows are
//! those of transformers, need not know.

mod reader;

use std::collections::BTreeMap;
use std::ops::Range;

use kernels::WeightFormat;
use serde_json::json;

use reader::{Header, Value};

/// Tensors outside the layers: their name here and in a file.
const NAMES: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Factors by which the rotary frequencies are divided; no weight.
const FREQUENCIES: &str = "rope_freqs.weight";

/// Modules of a layer: their name here and in a file.
const MODULES: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// A file that has been understood.
#[derive(Debug)]
pub(crate) struct Gguf {
    header: Header,
    architecture: String,
}

/// A tensor under the name that transformers has for it.
#[derive(Debug)]
pub(crate) struct GgufTensor {
    pub(crate) name: String,
    pub(crate) format: WeightFormat,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Range<usize>,
    /// Rows of a head, if the file has them in the order of neighbouring pairs.
    pub(crate) paired_rows: Option<usize>,
}

impl Gguf {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// What is wrong and where, as a sentence for whoever knows the file's name.
    pub(crate) fn read(file: &[u8]) -> Result<Self, String> {
        let header = reader::read(file, |_| false)?;
        let architecture = match header.metadata.get("general.architecture") {
            Some(Value::String(name)) => name.clone(),
            _ => return Err("general.architecture is missing".to_owned()),
        };
        Ok(Self { header, architecture })
    }

    /// The metadata as the keys of `config.json`, and what `file` has among its tensors for it.
    ///
    /// # Errors
    /// An architecture that has no counterpart, or a key of another type.
    pub(crate) fn config(&self, file: &[u8]) -> Result<serde_json::Value, String> {
        let window = self.optional("attention.sliding_window")?;
        let class = match self.architecture.as_str() {
            // Mistral is a Llama to GGML; the window is what tells them apart.
            "llama" if window.is_some() => "MistralForCausalLM",
            "llama" => "LlamaForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            other => {
                return Err(format!("is of architecture {other}; llama, qwen2 and qwen3 are read"));
            }
        };
        let embedding = self.header.tensors.get("token_embd.weight");
        let vocab_size = embedding.and_then(|info| info.shape.first());
        let mut config = json!({
            "architectures": [class],
            "vocab_size": vocab_size.ok_or("tensor token_embd.weight is missing")?,
            "hidden_size": self.integer("embedding_length")?,
            "intermediate_size": self.integer("feed_forward_length")?,
            "num_hidden_layers": self.integer("block_count")?,
            "num_attention_heads": self.integer("attention.head_count")?,
            "num_key_value_heads": self.optional("attention.head_count_kv")?,
            "head_dim": self.optional("attention.key_length")?,
            "max_position_embeddings": self.integer("context_length")?,
            "rms_norm_eps": self.float("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.float("rope.freq_base")?,
            "sliding_window": window,
            "tie_word_embeddings": !self.header.tensors.contains_key("output.weight"),
            "eos_token_id": self.token("eos_token_id")?,
            "bos_token_id": self.token("bos_token_id")?,
        });
        if config["head_dim"].is_null() {
            config["head_dim"] = self.optional("rope.dimension_count")?.into();
        }
        config["rope_scaling"] = self.rope_scaling(file)?;
        Ok(config)
    }

    /// A converter writes what the scaling of Llama 3 comes to, a factor for each frequency.
    fn rope_scaling(&self, file: &[u8]) -> Result<serde_json::Value, String> {
        let named = match self.header.metadata.get(&self.key("rope.scaling.type")) {
            None => None,
            Some(Value::String(name)) if name == "none" => None,
            Some(Value::String(name)) if name == "linear" => Some(name),
            Some(other) => {
                return Err(format!("rope.scaling.type is {other:?}, which is not read"));
            }
        };
        let Some(info) = self.header.tensors.get(FREQUENCIES) else {
            return match named {
                None => Ok(serde_json::Value::Null),
                Some(name) => {
                    Ok(json!({"rope_type": name, "factor": self.float("rope.scaling.factor")?}))
                }
            };
        };
        if named.is_some() {
            return Err(format!("has both {FREQUENCIES} and a scaling of all frequencies"));
        }
        if info.format != Some(WeightFormat::F32) || info.shape.len() != 1 {
            return Err(format!("tensor {FREQUENCIES} is no list of f32"));
        }
        let bytes = file[info.bytes.clone()].as_chunks::<4>().0;
        let factors: Vec<f32> = bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
            return Err(format!("tensor {FREQUENCIES} has a factor that is not above 0"));
        }
        // The same factors whatever the context, and no other scale: what LongRoPE can say.
        Ok(json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "attention_factor": 1.0}))
    }

    /// All tensors that a model of ours has.
    ///
    /// # Errors
    /// A tensor of a type that is not read, or heads that do not divide the rows.
    pub(crate) fn tensors(&self) -> Result<Vec<GgufTensor>, String> {
        let names: BTreeMap<&str, &str> = NAMES.iter().map(|(ours, file)| (*file, *ours)).collect();
        let mut tensors = Vec::new();
        for (name, info) in self.header.tensors.iter().filter(|(name, _)| *name != FREQUENCIES) {
            let ours = names.get(name.as_str()).map(|ours| (*ours).to_owned());
            // What has no name here keeps its own, so that it is seen as having no place.
            let ours = ours.or_else(|| of_layer(name)).unwrap_or_else(|| format!("model.{name}"));
            let format = info.format.ok_or_else(|| {
                let id = info.type_id;
                format!(
                    "tensor {name} is of GGML's type {id}; f32, f16, bf16, q8_0, q4_0, q4_K and \
                     q6_K are read"
                )
            })?;
            let (shape, bytes) = (info.shape.clone(), info.bytes.clone());
            let paired_rows = self.paired_rows(&ours, &shape)?;
            tensors.push(GgufTensor { name: ours, format, shape, bytes, paired_rows });
        }
        Ok(tensors)
    }

    fn paired_rows(&self, name: &str, shape: &[usize]) -> Result<Option<usize>, String> {
        let heads = match name {
            _ if self.architecture != "llama" => return Ok(None),
            _ if name.contains("q_proj") => self.integer("attention.head_count")?,
            _ if name.contains("k_proj") => match self.optional("attention.head_count_kv")? {
                Some(heads) => heads,
                None => self.integer("attention.head_count")?,
            },
            _ => return Ok(None),
        };
        let heads = usize::try_from(heads).unwrap_or(0);
        let rows = shape.first().copied().unwrap_or(0);
        let fits = heads > 0 && rows.is_multiple_of(heads) && (rows / heads).is_multiple_of(2);
        match fits {
            true => Ok(Some(rows / heads)),
            false => Err(format!("{name} has {rows} rows, which are not {heads} even heads")),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn integer(&self, name: &str) -> Result<u64, String> {
        self.optional(name)?.ok_or_else(|| format!("{} is missing", self.key(name)))
    }

    fn optional(&self, name: &str) -> Result<Option<u64>, String> {
        integer(&self.header, &self.key(name))
    }

    fn token(&self, name: &str) -> Result<Option<u64>, String> {
        integer(&self.header, &format!("tokenizer.ggml.{name}"))
    }

    fn float(&self, name: &str) -> Result<Option<f64>, String> {
        let key = self.key(name);
        match self.header.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value)),
            Some(other) => Err(format!("{key} is {other:?}, which is no float")),
        }
    }
}

/// What a file says of its tokenizer: the metadata whose keys begin with `tokenizer.`, lists as arrays.
///
/// # Errors
/// What is wrong and where, as a sentence for whoever knows the file's name.
pub(crate) fn tokenizer_metadata(
    file: &[u8],
) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let is_wanted = |key: &str| key.starts_with("tokenizer.");
    let header = reader::read(file, is_wanted)?;
    let wanted = header.metadata.into_iter().filter(|(key, _)| is_wanted(key));
    Ok(wanted.map(|(key, value)| (key, of_value(value))).collect())
}

fn of_value(value: Value) -> serde_json::Value {
    match value {
        // Whole numbers of a file have 64 bits at most, of either kind.
        Value::Integer(value) => match u64::try_from(value) {
            Ok(value) => value.into(),
            Err(_) => i64::try_from(value).map_or(serde_json::Value::Null, Into::into),
        },
        Value::Float(value) => value.into(),
        Value::Bool(value) => value.into(),
        Value::String(value) => value.into(),
        Value::Skipped { .. } => serde_json::Value::Null,
        Value::Array(values) => values.into_iter().map(of_value).collect(),
    }
}

fn integer(header: &Header, key: &str) -> Result<Option<u64>, String> {
    match header.metadata.get(key) {
        None => Ok(None),
        Some(Value::Integer(value)) => {
            let value = u64::try_from(*value).map_err(|_| format!("{key} is {value}"))?;
            Ok(Some(value))
        }
        Some(other) => Err(format!("{key} is {other:?}, which is no integer")),
    }
}

/// Name of a layer's tensor, `blk.<layer>.<module>.<weight or bias>` in the file.
fn of_layer(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (ours, _) = MODULES.iter().find(|(_, file)| *file == module)?;
    Some(format!("model.layers.{layer}.{ours}.{kind}"))
}

/// Rows of `row_bytes` bytes each, put in the order of transformers: of each head of `head_rows`, those of
/// even places, then those of odd ones.
pub(crate) fn unpaired(bytes: &[u8], row_bytes: usize, head_rows: usize) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head_rows * row_bytes) {
        for first in [0, 1] {
            for row in (first..head_rows).step_by(2) {
                ordered.extend_from_slice(&head[row * row_bytes..(row + 1) * row_bytes]);
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests;
