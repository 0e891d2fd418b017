//! Models and adapters of random weights, written as checkpoints, and batches for them.
//!
//! It measures nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lora::Adapter;
use models::{ForwardBatch, ModelConfig, SequenceSpan};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Positions of a block.
pub(crate) const BLOCK_TOKENS: usize = 16;
/// Positions of a sequence.
pub(crate) const CONTEXT: usize = 256;
/// A hundred million weights.
pub(crate) const TINY: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
    "intermediate_size": 2048, "vocab_size": 32000, "max_position_embeddings": 4096,
    "tie_word_embeddings": true}"#;
/// A thousand million weights.
pub(crate) const BILLION: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 4096,
    "tie_word_embeddings": true}"#;

/// Random f16 within about ±0.06.
fn random(count: usize, state: &mut u32) -> Vec<u8> {
    let next = |_| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Exponents 9 and 10 of 31, any sign, any fraction.
        let bits = ((*state >> 16) & 0x87ff) as u16 | 0x2400;
        bits.to_le_bytes()
    };
    (0..count).flat_map(next).collect()
}

fn write(path: &Path, tensors: &[(String, Vec<usize>)], state: &mut u32) {
    let data: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| (name, shape, random(shape.iter().product(), state)))
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F16, (*shape).clone(), bytes).expect("whole");
        (name.as_str(), view)
    });
    fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("writes");
}

/// Writes a checkpoint.
pub(crate) fn write_model(dir: &Path, config: &str, state: &mut u32) {
    fs::write(dir.join("config.json"), config).expect("writes");
    let config = ModelConfig::from_dir(dir).expect("is supported");
    let hidden = config.hidden_size;
    let mut tensors = vec![("model.norm.weight".to_owned(), vec![hidden])];
    for module in config.model_shape().modules {
        let shape = match module.path.as_str() {
            "lm_head" => continue,
            "model.embed_tokens" => vec![config.vocab_size, hidden],
            _ => vec![module.out_features, module.in_features],
        };
        tensors.push((format!("{}.weight", module.path), shape));
    }
    for layer in 0..config.layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((format!("model.layers.{layer}.{norm}.weight"), vec![hidden]));
        }
        let Some(experts) = &config.experts else { continue };
        for norm in ["q_norm", "k_norm"] {
            let name = format!("model.layers.{layer}.self_attn.{norm}.weight");
            tensors.push((name, vec![config.head_dim]));
        }
        let mlp = format!("model.layers.{layer}.mlp");
        let inner = experts.intermediate_size;
        for index in 0..experts.count {
            for (name, shape) in [
                ("gate_proj", vec![inner, hidden]),
                ("up_proj", vec![inner, hidden]),
                ("down_proj", vec![hidden, inner]),
            ] {
                tensors.push((format!("{mlp}.experts.{index}.{name}.weight"), shape));
            }
        }
    }
    write(&dir.join("model.safetensors"), &tensors, state);
}

/// Writes and loads an adapter of all linear layers.
pub(crate) fn write_adapter(dir: &Path, config: &ModelConfig, state: &mut u32) -> Arc<Adapter> {
    const RANK: usize = 16;
    fs::create_dir_all(dir).expect("writes");
    let keys =
        r#"{"peft_type": "LORA", "r": 16, "lora_alpha": 16, "target_modules": "all-linear"}"#;
    fs::write(dir.join("adapter_config.json"), keys).expect("writes");
    let shape = config.model_shape();
    let mut tensors = Vec::new();
    for module in shape.modules.iter().filter(|module| module.adaptable) {
        let name = |letter| format!("base_model.model.{}.lora_{letter}.weight", module.path);
        tensors.push((name('A'), vec![RANK, module.in_features]));
        tensors.push((name('B'), vec![module.out_features, RANK]));
    }
    write(&dir.join("adapter_model.safetensors"), &tensors, state);
    Arc::new(Adapter::from_dir(dir, &shape).expect("was just written"))
}

/// A batch of `sequences`, each running `rows` tokens up to `context_len`.
pub(crate) fn batch(sequences: usize, rows: usize, context_len: usize) -> ForwardBatch {
    let mut batch = ForwardBatch::default();
    let blocks = context_len.div_ceil(BLOCK_TOKENS);
    for index in 0..sequences {
        batch.sequences.push(SequenceSpan {
            token_start: index * rows,
            token_count: rows,
            context_len,
            block_table: (index * blocks..(index + 1) * blocks).map(|b| b as u32).collect(),
        });
        batch.positions.extend((context_len - rows) as u32..context_len as u32);
        batch.tokens.extend((0..rows as u32).map(|token| 7 * token + index as u32));
        batch.adapters.push(None);
        batch.logits_rows.push(((index + 1) * rows - 1) as u32);
    }
    batch
}
