//! Tokens per second of a Llama of random weights on a CUDA device, decoding: 1 to 256 sequences with 0 to
//! 256 adapters, as a table in Markdown, with the share of the bandwidth that the same run measures.
//!
//! `cargo bench -p models --features cuda --bench device -- [tiny|1b] [f16|q8_0]`; it asserts nothing, and
//! prints no table where there is no device.

mod made;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use kernels::SampleParams;
use lora::Adapter;
use made::{BILLION, BLOCK_TOKENS, CONTEXT, TINY, batch, write_adapter, write_model};
use models::{
    CausalLm, Device, DeviceChoice, ForwardBatch, KvCache, KvShape, LoadOptions, ModelConfig,
    Quantization,
};

type Failure = Box<dyn std::error::Error>;

const SEQUENCES: [usize; 5] = [1, 8, 32, 128, 256];
const ADAPTERS: [usize; 4] = [0, 1, 32, 256];
/// Bytes that the bandwidth is measured on, more than any cache holds.
const COPY_BYTES: usize = 512 << 20;
const ROUNDS: usize = 20;
/// A draw as chats have it.
const DRAW: SampleParams =
    SampleParams { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, draw: 0.5 };

/// Seconds of a step, a token drawn of each row on the device: what an engine waits for.
fn seconds(
    model: &mut dyn CausalLm,
    kv: &mut KvCache,
    batch: &ForwardBatch,
) -> Result<f64, Failure> {
    let mut step = || -> Result<(), Failure> {
        let logits = model.forward(batch, kv)?;
        let rows = vec![DRAW; batch.logits_rows.len()];
        std::hint::black_box(kernels::sample(&logits, &rows)?);
        Ok(())
    };
    // Adapters are copied by the first.
    for _ in 0..3 {
        step()?;
    }
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        step()?;
    }
    Ok(begin.elapsed().as_secs_f64() / ROUNDS as f64)
}

/// Bytes read and written a second by copies on the device.
fn bandwidth(device: &Device) -> Result<f64, Failure> {
    let source = Tensor::zeros(COPY_BYTES / 4, DType::F32, device)?;
    drop(source.copy()?);
    device.synchronize()?;
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        drop(source.copy()?);
    }
    device.synchronize()?;
    Ok((2 * COPY_BYTES * ROUNDS) as f64 / begin.elapsed().as_secs_f64())
}

fn table(
    (dir, adapters): (&Path, &[Arc<Adapter>]),
    options: &LoadOptions,
    bandwidth: f64,
) -> Result<(), Failure> {
    let mut model = models::load(dir, options)?;
    let blocks_each = CONTEXT.div_ceil(BLOCK_TOKENS);
    let most = SEQUENCES[SEQUENCES.len() - 1];
    let format = model.kv_format();
    let shape = |sequences: usize| KvShape {
        blocks: sequences * blocks_each,
        block_tokens: BLOCK_TOKENS,
        format,
    };
    let mut kv = model.kv_cache(shape(most))?;
    println!("| sequences | adapters | ms a step | tokens/s | of the bandwidth |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for sequences in SEQUENCES {
        for count in ADAPTERS {
            let used = &adapters[..count.min(sequences)];
            let mut batch = batch(sequences, 1, CONTEXT);
            for (index, adapter) in batch.adapters.iter_mut().enumerate() {
                *adapter = used.get(index % used.len().max(1)).cloned();
            }
            let seconds = seconds(&mut *model, &mut kv, &batch)?;
            // What a step must read at least: weights, keys and values, each adapter once.
            let keys = model.kv_bytes(shape(sequences)).unwrap_or(0);
            let of_adapters: u64 = used.iter().map(|adapter| adapter.bytes()).sum();
            let least = (model.weights_bytes() + keys + of_adapters) as f64;
            println!(
                "| {sequences} | {count} | {:.2} | {:.0} | {:.1} % |",
                seconds * 1e3,
                sequences as f64 / seconds,
                100.0 * least / seconds / bandwidth
            );
        }
    }
    Ok(())
}

/// As many as are ever needed, made on all processors.
fn adapters(dir: &Path, config: &ModelConfig) -> Vec<Arc<Adapter>> {
    let indices: Vec<usize> = (0..ADAPTERS[ADAPTERS.len() - 1]).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = indices.len().div_ceil(threads);
    let make = |index: &usize| {
        // Each its own numbers, or they would be one adapter.
        let mut state = 2 + *index as u32;
        write_adapter(&dir.join(index.to_string()), config, &mut state)
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = indices
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(make).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("adapters are made")).collect()
    })
}

fn main() -> Result<(), Failure> {
    let device = match DeviceChoice::Cuda.place() {
        Ok(placement) => placement.device,
        Err(error) => {
            println!("no device to measure: {error}");
            return Ok(());
        }
    };
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let named = |name: &str| arguments.iter().any(|a| a == name);
    let (name, config) = if named("1b") { ("1b", BILLION) } else { ("tiny", TINY) };
    let dir = tempfile::tempdir()?;
    let mut state = 1;
    write_model(dir.path(), config, &mut state);
    let config = ModelConfig::from_dir(dir.path())?;
    let bandwidth = bandwidth(&device)?;
    println!("{:.0} GB/s read and written by copies; shares are of this", bandwidth / 1e9);
    let formats = [("f16", None), ("q8_0", Some(Quantization::Q8_0))];
    let some = formats.iter().any(|(format, _)| named(format));
    for (format, quantization) in formats.into_iter().filter(|(format, _)| !some || named(format)) {
        println!("\n{name} in {format}, {CONTEXT} positions a sequence, adapters of rank 16\n");
        let options =
            LoadOptions { device: device.clone(), quantization, ..LoadOptions::default() };
        // Anew for each: a device keeps them in the type of the model that they are used with.
        let adapters = adapters(dir.path(), &config);
        table((dir.path(), &adapters), &options, bandwidth)?;
    }
    Ok(())
}
