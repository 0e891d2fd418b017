//! The directory of a model.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::draw::{Dtype, Fill};
use super::tensors::{Tensor, write_file};
use super::{Shape, TARGETS, vocabulary};
use crate::BenchError;

/// Deviation of the logits of a made model: some tokens are clearly likelier than others, and none
/// is certain.
const LOGITS_STD: f32 = 2.0;
/// What attention adds, as a part of what it would with the scale of other modules.
const ATTENTION_SCALE: f32 = 0.25;

/// Makes the directory of a model: configuration, weights, tokenizer.
///
/// # Errors
/// A vocabulary too small for the tokenizer; a file that can't be written.
pub fn make_model(shape: &Shape, dir: &Path, dtype: Dtype, seed: u64) -> Result<(), BenchError> {
    let tokenizer = vocabulary::tokenizer(shape.vocab)?;
    fs::create_dir_all(dir).map_err(BenchError::io("create", dir))?;
    write_json(&dir.join("config.json"), &shape.config(dtype))?;
    write_json(&dir.join("tokenizer.json"), &tokenizer)?;
    write_json(&dir.join("tokenizer_config.json"), &vocabulary::tokenizer_config())?;
    write_file(&dir.join("model.safetensors"), &tensors(shape), dtype, seed)
}

/// Writes JSON as people read it.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), BenchError> {
    let text = format!("{value:#}\n");
    fs::write(path, text).map_err(BenchError::io("write", path))
}

/// Every tensor, scaled so that activations neither vanish nor explode and the logits deviate by
/// [`LOGITS_STD`].
///
/// Answers must not repeat themselves: whoever guesses tokens ahead would always be right, and look
/// faster than on any real text. So what layers add outweighs the embedding, or a tied head would say
/// each token again; and attention adds little, or all positions, which attend to much the same, would
/// say the same. Of 64 greedy tokens of `tiny-100m`, 64 differ; with `o_proj` four times as large, 9.
fn tensors(shape: &Shape) -> Vec<Tensor> {
    let matrix = |name: &str, rows: usize, columns: usize, scale: f32| Tensor {
        name: format!("{name}.weight"),
        shape: vec![rows, columns],
        fill: Fill::Normal(scale / (columns as f32).sqrt()),
    };
    let norm = |name: &str| Tensor {
        name: format!("{name}.weight"),
        shape: vec![shape.hidden],
        fill: Fill::Constant(1.0),
    };
    let mut tensors = vec![matrix("model.embed_tokens", shape.vocab, shape.hidden, LOGITS_STD)];
    for layer in 0..shape.layers {
        let layer = format!("model.layers.{layer}");
        tensors.push(norm(&format!("{layer}.input_layernorm")));
        for target in TARGETS {
            let module = shape.module(target).expect("one of TARGETS");
            let name = format!("{layer}.{}.{target}", module.block);
            let scale = if target == "o_proj" { ATTENTION_SCALE } else { 1.0 };
            tensors.push(matrix(&name, module.outputs, module.inputs, scale));
        }
        tensors.push(norm(&format!("{layer}.post_attention_layernorm")));
    }
    tensors.push(norm("model.norm"));
    if !shape.tied {
        tensors.push(matrix("lm_head", shape.vocab, shape.hidden, LOGITS_STD));
    }
    tensors
}
