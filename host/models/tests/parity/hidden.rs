//! Hidden states behind the final norm, as means over the prompt: those of the reference, for each
//! architecture, its base and its adapters.

use candle_core::Device;
use models::{ForwardBatch, KvCache, SequenceSpan};

use crate::fixture;
use crate::runner::{Fixture, kv_shape};

/// Largest difference of a mean from the reference.
const TOLERANCE: f32 = 1e-4;

fn check(architecture: &str) {
    let mut loaded = Fixture::load(architecture);
    let bytes = std::fs::read(fixture(architecture).join("embeddings.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = loaded.model.config().clone();
    for (case, adapter) in loaded.cases.iter().zip(&loaded.adapters) {
        let rows = case.prompt.len() as u32;
        let blocks = rows.div_ceil(16);
        let batch = ForwardBatch {
            tokens: case.prompt.clone(),
            positions: (0..rows).collect(),
            sequences: vec![SequenceSpan {
                token_start: 0,
                token_count: rows as usize,
                context_len: rows as usize,
                block_table: (0..blocks).collect(),
            }],
            adapters: vec![adapter.clone()],
            logits_rows: vec![rows - 1],
            hidden_rows: (0..rows).collect(),
        };
        let mut kv = KvCache::new(&config, kv_shape(blocks as usize, 16), &Device::Cpu).unwrap();
        let (logits, hidden) = loaded.model.forward_hidden(&batch, &mut kv).unwrap();
        assert_eq!(hidden.dims(), [rows as usize, config.hidden_size]);
        // Asking for hidden states changes no logits.
        let alone = loaded.model.forward(&batch, &mut kv).unwrap();
        assert_eq!(logits.to_vec2::<f32>().unwrap(), alone.to_vec2::<f32>().unwrap());
        let states = hidden.to_vec2::<f32>().unwrap();
        let expected = file.tensor(&case.name).unwrap();
        let expected = expected.data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v));
        let mut largest = 0.0_f32;
        for (at, expect) in expected.enumerate() {
            let sum: f64 = states.iter().map(|row| f64::from(row[at])).sum();
            largest = largest.max(((sum / f64::from(rows)) as f32 - expect).abs());
        }
        println!("{architecture}, {}: means within {largest:e}", case.name);
        assert!(largest < TOLERANCE, "{architecture}, {}: differs by {largest}", case.name);
    }
}

#[test]
fn means_of_hidden_states_agree_with_transformers() {
    for architecture in ["llama", "mistral", "qwen2", "qwen3"] {
        check(architecture);
    }
}
