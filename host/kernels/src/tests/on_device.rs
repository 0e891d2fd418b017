//! The ops as callers have them, tensors in and tensors out, on a real device against the CPU. They do
//! nothing unless `MORTISE_TEST_CUDA=1` asks for one.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{assert_close, pair_of, rounded};
use crate::launch::ElementType;
use crate::ops::lora_shrink::cuda::{DevicePair, DeviceStep, DeviceTable, LoraKernel, LoraSpan};
use crate::ops::testing::{Random, weight_of};
use crate::ops::{embedding, gemv_q8, kv_write, lora_expand, lora_shrink, paged_attention};
use crate::ops::{rms_norm, rope, sample, silu_mul};
use crate::tensor::from_host;
use crate::{AttentionShape, KvBlocks, KvFormat, KvGeometry, LoraSegment, PagedPlan, PagedSpan};
use crate::{WeightBytes, WeightFormat};

const TOLERANCE: f32 = 1.2e-2;

/// The same tensor on the host in f32 and on the device in bf16.
fn both(random: &mut Random, shape: (usize, usize), device: &Device) -> (Tensor, Tensor) {
    let floats = rounded(ElementType::Bf16, &random.floats(shape.0 * shape.1));
    let host = from_host(floats, shape).unwrap();
    let there = host.to_dtype(DType::BF16).unwrap().to_device(device).unwrap();
    (host, there)
}

fn check(found: &Tensor, expected: &Tensor, what: &str) {
    let floats = |tensor: &Tensor| -> Vec<f32> {
        let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    };
    assert_close(&floats(found), &floats(expected), TOLERANCE, what);
}

#[test]
fn lora() {
    let Some(device) = super::device::asked_for() else { return };
    let mut random = Random::new(1);
    let (rows, inputs, outputs) = (40, 256, 512);
    let (mut hosts, mut entries) = (Vec::new(), vec![None]);
    for rank in [16, 3, 200] {
        let a = rounded(ElementType::Bf16, &random.floats(rank * inputs));
        let b = rounded(ElementType::Bf16, &random.floats(rank * outputs));
        let sizes = (rank, inputs, outputs);
        hosts.push(pair_of((&a, &b), sizes, 0.01));
        let bytes = [&a, &b].map(|floats| weight_of(floats, WeightFormat::F32));
        let a = WeightBytes::new(&bytes[0], WeightFormat::F32, rank, inputs).unwrap();
        let b = WeightBytes::new(&bytes[1], WeightFormat::F32, outputs, rank).unwrap();
        let pair = DevicePair::new((&a, &b), 0.01, DType::BF16, &device).unwrap();
        entries.push(Some(Arc::new(pair)));
    }
    let table = DeviceTable::new(entries, DType::BF16, &device).unwrap();
    let span = |row_start, rows, entry, kernel| LoraSpan { row_start, rows, entry, kernel };
    let spans = [
        span(0, 2, 0, LoraKernel::Rows),
        span(2, 1, 1, LoraKernel::Rows),
        span(3, 3, 2, LoraKernel::Rows),
        span(10, 25, 3, LoraKernel::Tiles),
    ];
    let step = DeviceStep::new(&spans, &table).unwrap();
    let segments: Vec<_> = spans[1..]
        .iter()
        .map(|s| LoraSegment { row_start: s.row_start, rows: s.rows, pair: &hosts[s.entry - 1] })
        .collect();
    let (x, x_there) = both(&mut random, (rows, inputs), &device);
    let (y, y_there) = both(&mut random, (rows, outputs), &device);
    let hidden = lora_shrink::cuda::lora_shrink(&x_there, &table, &step).unwrap();
    let expected = lora_shrink::lora_shrink(&x, &segments).unwrap();
    check(&hidden, &expected, "shrink");
    lora_expand::cuda::lora_expand(&y_there, &hidden, &table, &step).unwrap();
    check(&y_there, &lora_expand::lora_expand(y, &expected, &segments).unwrap(), "expand");
    // A step made for other ranks, and rows that are not there.
    let other = DeviceTable::new(vec![None; 4], DType::BF16, &device).unwrap();
    assert!(lora_shrink::cuda::lora_shrink(&x_there, &other, &step).is_err());
    let short = x_there.narrow(0, 0, 34).unwrap();
    assert!(lora_shrink::cuda::lora_shrink(&short, &table, &step).is_err());
}

#[test]
fn attention() {
    let Some(device) = super::device::asked_for() else { return };
    let mut random = Random::new(2);
    let format = KvFormat::F32;
    let geometry = KvGeometry { blocks: 64, block_tokens: 16, kv_heads: 2, head_dim: 64, format };
    let shape = AttentionShape { heads: 8, window: None, scale: 0.125, softcap: None };
    let mut host = KvBlocks::new(geometry, &Device::Cpu).unwrap();
    let mut there = kv_write::cuda::DeviceBlocks::new(geometry, DType::BF16, &device).unwrap();
    let tables = [(0..40).rev().collect::<Vec<u32>>(), vec![63, 50]];
    let span = |row_start, rows, context_len, table: usize| PagedSpan {
        row_start,
        rows,
        context_len,
        block_table: tables[table].clone(),
    };
    for spans in [
        vec![span(0, 600, 600, 0), span(600, 20, 20, 1)],
        vec![span(0, 1, 601, 0), span(1, 3, 23, 1)],
    ] {
        let plan = PagedPlan::new(spans, &geometry).unwrap();
        let rows = plan.slots().len();
        let (k, k_there) = both(&mut random, (rows, 128), &device);
        let (v, v_there) = both(&mut random, (rows, 128), &device);
        let (q, q_there) = both(&mut random, (rows, 512), &device);
        kv_write::kv_write(&k, &v, &plan, &mut host).unwrap();
        let slots = kv_write::cuda::DeviceSlots::new(&plan, geometry, &device).unwrap();
        kv_write::cuda::kv_write(&k_there, &v_there, &slots, &mut there).unwrap();
        let step =
            paged_attention::cuda::DeviceStep::new(&plan, geometry, shape, DType::BF16, &device)
                .unwrap();
        let found = paged_attention::cuda::paged_attention(&q_there, &there, &step).unwrap();
        let expected = paged_attention::paged_attention(&q, &host, &plan, &shape).unwrap();
        check(&found, &expected, "attention");
    }
}

#[test]
fn elementwise() {
    let Some(device) = super::device::asked_for() else { return };
    let mut random = Random::new(3);
    let (x, x_there) = both(&mut random, (9, 192), &device);
    let (y, y_there) = both(&mut random, (9, 192), &device);
    let (weight, weight_there) = both(&mut random, (1, 192), &device);
    let [weight, weight_there] = [weight, weight_there].map(|w| w.flatten_all().unwrap());
    let normed = rms_norm::cuda::rms_norm(&x_there, &weight_there, 1e-5).unwrap();
    check(&normed, &rms_norm::rms_norm(&x, &weight, 1e-5).unwrap(), "norm");
    let gated = silu_mul::cuda::silu_mul(&x_there, &y_there).unwrap();
    check(&gated, &silu_mul::silu_mul(&x, &y).unwrap(), "gate");
    let scaling = rope::RopeScaling::None;
    let config = rope::RopeConfig { head_dim: 64, rotary_dim: 64, theta: 1e4, scaling };
    let angles = rope::RopeTable::new(&config).unwrap().angles(&[0, 1, 2, 3, 900, 5, 6, 7, 8]);
    let angles_there = rope::cuda::DeviceAngles::new(&angles, &device).unwrap();
    rope::cuda::rope(&y_there, &angles_there).unwrap();
    let y = rope::rope(y, &angles).unwrap();
    check(&y_there, &y, "rope");
    let normed = rms_norm::cuda::add_rms_norm(&x_there, &y_there, &weight_there, 1e-5).unwrap();
    let sum = (&x + &y).unwrap();
    check(&y_there, &sum, "running sum");
    check(&normed, &rms_norm::rms_norm(&sum, &weight, 1e-5).unwrap(), "norm of the sum");
    let table = embedding::cuda::DeviceEmbedding::tied(x_there).unwrap();
    let rows = table.gather(&[3, 8, 3]).unwrap();
    let ids = Tensor::new(&[3_u32, 8, 3], &Device::Cpu).unwrap();
    check(&rows, &x.index_select(&ids, 0).unwrap(), "look-up");
    assert!(table.gather(&[9]).is_err());
}

#[test]
fn products_and_sampling() {
    let Some(device) = super::device::asked_for() else { return };
    let mut random = Random::new(4);
    let (outputs, inputs) = (48, 64);
    let mut file = Vec::new();
    let mut dense = Vec::new();
    for _ in 0..outputs * inputs / 32 {
        file.extend(half::f16::from_f32(0.01).to_le_bytes());
        let quants: Vec<u8> = (0..32).map(|_| random.below(256) as u8).collect();
        let scale = half::f16::from_f32(0.01).to_f32();
        dense.extend(quants.iter().map(|q| f32::from(q.cast_signed()) * scale));
        file.extend(quants);
    }
    let sizes = (outputs, inputs);
    let weight = WeightBytes::new(&file, WeightFormat::Q8_0, outputs, inputs).unwrap();
    let linear = gemv_q8::cuda::DeviceLinearQ8::new(&weight, Some(&[0.5; 48]), &device).unwrap();
    let dense = from_host(dense, sizes).unwrap();
    for rows in [1, 8, 9, 40] {
        let (x, there) = both(&mut random, (rows, inputs), &device);
        let expected = (x.matmul(&dense.t().unwrap()).unwrap() + 0.5).unwrap();
        check(&linear.forward(&there).unwrap(), &expected, "product");
    }
    let logits = Tensor::new(&[[0_f32, 3.0, 1.0], [5.0, 1.0, 4.0]], &device).unwrap();
    let greedy =
        sample::SampleParams { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, draw: 0.0 };
    let bias =
        sample::LogitAdjustment { row: 1, token: 2, repetition: 1.0, subtract: 0.0, add: 2.0 };
    let tokens = sample::cuda::sample(&logits, &[greedy; 2], &[bias]).unwrap();
    assert_eq!(tokens.to_vec1::<u32>().unwrap(), [1, 2]);
    // The same draws as on the host, of a vocabulary as large as models have.
    let host = from_host(random.floats(6 * 128_256), (6, 128_256)).unwrap();
    let drawn = |draw| sample::SampleParams { temperature: 0.7, draw, ..greedy };
    let params = [
        greedy,
        drawn(0.4),
        sample::SampleParams { top_k: 50, ..drawn(0.9) },
        sample::SampleParams { top_p: 0.9, ..drawn(0.2) },
        sample::SampleParams { min_p: 0.05, ..drawn(0.6) },
        sample::SampleParams { top_k: 20, top_p: 0.95, ..drawn(0.99) },
    ];
    let there = host.to_device(&device).unwrap();
    assert_eq!(crate::sample(&there, &params).unwrap(), crate::sample(&host, &params).unwrap());
}
