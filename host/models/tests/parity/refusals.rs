//! Batches that a loaded model refuses, and what it gives when nothing is wanted.

use std::fs;

use candle_core::Device;
use models::{BatchError, ForwardBatch, KvCache, ModelConfig, ModelError, SequenceSpan};
use safetensors::tensor::TensorView;

use crate::fixture;
use crate::runner::{Fixture, kv_shape};

fn batch(fixture: &Fixture, case: usize) -> ForwardBatch {
    ForwardBatch {
        tokens: vec![5, 6],
        positions: vec![0, 1],
        sequences: vec![SequenceSpan {
            token_start: 0,
            token_count: 2,
            context_len: 2,
            block_table: vec![1],
        }],
        adapters: vec![fixture.adapters[case].clone()],
        logits_rows: vec![1],
        hidden_rows: Vec::new(),
    }
}

#[test]
fn what_belongs_to_another_model_is_refused() {
    let mut qwen2 = Fixture::load("qwen2");
    let qwen3 = Fixture::load("qwen3");
    let kv = |config: &ModelConfig| KvCache::new(config, kv_shape(2, 16), &Device::Cpu).unwrap();
    let (mut own, mut other) = (kv(qwen2.model.config()), kv(qwen3.model.config()));
    let good = batch(&qwen2, 1);
    assert!(qwen2.model.forward(&good, &mut own).is_ok());
    assert!(matches!(
        qwen2.model.forward(&good, &mut other),
        Err(ModelError::Batch(BatchError::KvCacheShape))
    ));
    let foreign = ForwardBatch { adapters: vec![qwen3.adapters[1].clone()], ..good };
    assert!(matches!(
        qwen2.model.forward(&foreign, &mut own),
        Err(ModelError::Batch(BatchError::AdapterShape { sequence: 0 }))
    ));
    let dir = fixture("qwen3").join("adapters/r4");
    let shape = qwen2.model.config().model_shape();
    assert!(matches!(
        lora::Adapter::from_dir(&dir, &shape),
        Err(lora::LoraError::TensorUnknown { .. }
            | lora::LoraError::TensorShape { .. }
            | lora::LoraError::TensorMissing { .. })
    ));
}

#[test]
fn logits_come_in_the_order_asked_for() {
    let mut fixture = Fixture::load("llama");
    let config = fixture.model.config().clone();
    let mut kv = KvCache::new(&config, kv_shape(2, 16), &Device::Cpu).unwrap();
    let mut run = |logits_rows: Vec<u32>| {
        let batch = ForwardBatch { logits_rows, ..batch(&fixture, 2) };
        fixture.model.forward(&batch, &mut kv).unwrap().to_vec2::<f32>().unwrap()
    };
    let both = run(vec![0, 1]);
    assert_ne!(both[0], both[1]);
    assert_eq!(run(vec![1, 0, 1]), [both[1].clone(), both[0].clone(), both[1].clone()]);
    assert!(run(vec![]).is_empty());
    let nothing = fixture.model.forward(&ForwardBatch::default(), &mut kv).unwrap();
    assert_eq!(nothing.dims(), [0, config.vocab_size]);
}

#[test]
fn a_cache_has_the_bytes_it_said() {
    let config = ModelConfig::from_dir(&fixture("llama")).unwrap();
    // Three layers, two key heads, sixteen wide, keys and values.
    assert_eq!(KvCache::bytes(&config, kv_shape(10, 16)), Some(3 * 2 * 16 * 2 * 160 * 4));
    assert_eq!(KvCache::bytes(&config, kv_shape(0, 16)), None);
    assert_eq!(KvCache::bytes(&config, kv_shape(usize::MAX, 16)), None);
    for (blocks, tokens) in [(0, 16), (16, 0), (u32::MAX as usize, u32::MAX as usize)] {
        assert!(KvCache::new(&config, kv_shape(blocks, tokens), &Device::Cpu).is_err());
    }
}

#[test]
fn adapters_of_experts_are_refused() {
    const KEYS: &str = r#"{"peft_type": "LORA", "r": 1, "target_modules": ["q_proj", "NAME"]}"#;
    let shape = ModelConfig::from_dir(&fixture("qwen3_moe")).unwrap().model_shape();
    let floats = [0_u8; 4 * 80];
    let check = |target: &str, module: &str, expect: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("adapter_config.json"), KEYS.replace("NAME", target)).unwrap();
        let mut tensors = Vec::new();
        for layer in 0..3 {
            for (path, outputs) in [("self_attn.q_proj", 64), (module, 20)] {
                for (letter, shape) in [('A', vec![1, 48]), ('B', vec![outputs, 1])] {
                    let bytes = &floats[..4 * shape.iter().product::<usize>()];
                    let view = TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap();
                    let path = format!("base_model.model.model.layers.{layer}.{path}");
                    tensors.push((format!("{path}.lora_{letter}.weight"), view));
                }
            }
        }
        let file = safetensors::serialize(tensors, None).unwrap();
        fs::write(dir.path().join("adapter_model.safetensors"), file).unwrap();
        let error = lora::Adapter::from_dir(dir.path(), &shape).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    // As PEFT wrote them for transformers 4, where experts and router were modules.
    check("gate_proj", "mlp.experts.3.gate_proj", "mlp.experts.3.gate_proj");
    check("gate", "mlp.gate", "mlp.gate");
}
