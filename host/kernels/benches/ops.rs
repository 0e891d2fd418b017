//! Timings of the ops that decide throughput, on shapes of a model of a billion parameters.
//!
//! `cargo bench -p kernels` prints the best of several runs; it asserts nothing.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kernels::{
    AttentionShape, KvBlocks, KvFormat, KvGeometry, LoraPair, LoraSegment, PackedLinear, PagedPlan,
    PagedSpan, Pool, WeightBytes, WeightFormat, lora_expand, lora_shrink, paged_attention,
};

/// Best time of several runs.
fn best(mut run: impl FnMut()) -> Duration {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 3 || begin.elapsed() < Duration::from_millis(400) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

fn floats(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

fn tensor(rows: usize, width: usize) -> Tensor {
    Tensor::from_vec(floats(rows * width), (rows, width), &Device::Cpu).expect("a CPU tensor")
}

fn linear() {
    for format in [
        WeightFormat::F32,
        WeightFormat::F16,
        WeightFormat::Q8_0,
        WeightFormat::Q6K,
        WeightFormat::Q4K,
        WeightFormat::Q4_0,
    ] {
        println!("linear in {format:?}: rows inputs outputs, ms, GOP/s, GB/s of weights");
        for (inputs, outputs) in [(768, 2048), (2048, 8192), (8192, 2048)] {
            let linear = packed(format, inputs, outputs);
            for rows in [1, 2, 4, 8, 16, 32, 128, 512] {
                let x = tensor(rows, inputs);
                let run = || drop(black_box(linear.forward(&x).expect("fits")));
                let time = best(run).as_secs_f64();
                let ops = 2.0 * (rows * inputs * outputs) as f64 / time / 1e9;
                let bandwidth = linear.bytes() as f64 / time / 1e9;
                let ms = time * 1e3;
                println!("  {rows:4} {inputs:5} {outputs:5} {ms:9.3} {ops:8.1} {bandwidth:7.1}");
            }
        }
    }
}

fn packed(format: WeightFormat, inputs: usize, outputs: usize) -> PackedLinear {
    let values = floats(inputs * outputs);
    let source = if format == WeightFormat::F16 { WeightFormat::F16 } else { WeightFormat::F32 };
    let bytes: Vec<u8> = match source {
        WeightFormat::F16 => {
            values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
        }
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    let weight = WeightBytes::new(&bytes, source, outputs, inputs).expect("whole");
    PackedLinear::pack(weight, None, Some(format), &Device::Cpu).expect("packs")
}

fn attention(format: KvFormat) {
    println!(
        "attention of 32 heads by 64 over 8 key heads in {format:?}: rows context, ms, GFLOP/s"
    );
    let geometry = KvGeometry { blocks: 512, block_tokens: 16, kv_heads: 8, head_dim: 64, format };
    let blocks = KvBlocks::new(geometry, &Device::Cpu).expect("small");
    let shape = AttentionShape { heads: 32, window: None, scale: 0.125, softcap: None };
    for (rows, context_len) in [(1, 512), (1, 4096), (128, 128), (128, 1024), (512, 512)] {
        let block_table = (0..context_len as u32 / 16).rev().collect();
        let span = PagedSpan { row_start: 0, rows, context_len, block_table };
        let plan = PagedPlan::new(vec![span], &geometry).expect("fits");
        let q = tensor(rows, 32 * 64);
        let run = || drop(black_box(paged_attention(&q, &blocks, &plan, &shape).expect("fits")));
        let time = best(run).as_secs_f64();
        let positions: usize = (context_len - rows + 1..=context_len).sum();
        let flops = 4.0 * (positions * 32 * 64) as f64 / time / 1e9;
        println!("  {rows:4} {context_len:5} {:9.3} {flops:8.1}", time * 1e3);
    }
}

fn lora() {
    println!("lora of 2048 by 2048, distinct adapters: segments rows rank, shrink ms, expand ms");
    for (count, rows, rank) in [(1, 1, 16), (8, 1, 16), (32, 1, 16), (8, 64, 16), (8, 1, 64)] {
        let bytes: Vec<u8> = floats(rank * 2048)
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
            .collect();
        let half = |rows, columns| WeightBytes::new(&bytes, WeightFormat::F16, rows, columns);
        let (a, b) = (half(rank, 2048).expect("whole"), half(2048, rank).expect("whole"));
        let pairs: Vec<LoraPair> =
            (0..count).map(|_| LoraPair::new(&a, &b, 1.0).expect("sizes fit")).collect();
        let segments: Vec<_> = pairs
            .iter()
            .enumerate()
            .map(|(i, pair)| LoraSegment { row_start: i * rows, rows, pair })
            .collect();
        let x = tensor(count * rows, 2048);
        let hidden = lora_shrink(&x, &segments).expect("fits");
        let shrink = best(|| drop(black_box(lora_shrink(&x, &segments).expect("fits"))));
        let expand = best(|| {
            drop(black_box(lora_expand(x.clone(), &hidden, &segments).expect("fits")));
        });
        let (shrink, expand) = (shrink.as_secs_f64() * 1e3, expand.as_secs_f64() * 1e3);
        println!("  {count:3} {rows:3} {rank:3} {shrink:9.3} {expand:9.3}");
    }
}

fn main() {
    // Cargo adds `--bench`; a number is the number of threads.
    let threads = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(2);
    println!("{:?}, {threads} threads", kernels::dispatch::level());
    Pool::new(threads).expect("threads").install(|| {
        linear();
        attention(KvFormat::F16);
        attention(KvFormat::Int8);
        lora();
    });
}
