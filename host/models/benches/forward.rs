//! Tokens per second of a Llama, or of a Qwen3 with 64 experts, of random weights: prefill, and decode of 1, 8 and 32 sequences without
//! adapters, with one for all and with one each; beside them the share of the memory's bandwidth that
//! one sequence's decoding uses.
//!
//! `cargo bench -p models -- [tiny|1b|moe] [threads] [f16|q8_0|q6_k|q4_k|q4_0]... [decode-8]...`
//! writes a checkpoint (200 MB,
//! 2.5 GB, 520 MB) to a temporary directory; it asserts nothing.

mod made;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use kernels::Pool;
use lora::Adapter;
use made::{BILLION, BLOCK_TOKENS, CONTEXT, TINY, batch, write_adapter, write_model};
use models::{CausalLm, ForwardBatch, KvCache, KvShape, LoadOptions, ModelConfig, Quantization};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each case is measured.
const SECONDS: f64 = 3.0;
/// Steps of one batch before the next has its turn.
const RUNS_TOGETHER: usize = 4;
/// Bytes that the memory's bandwidth is measured on, more than any cache holds.
const BANDWIDTH_BYTES: usize = 512 << 20;
const EXPERTS: &str = r#"{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 768,
    "num_hidden_layers": 4, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 2048, "moe_intermediate_size": 384, "num_experts": 64,
    "num_experts_per_tok": 8, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": true}"#;

/// Best tokens per second of each batch, run in turns for what else the machine does to fall on all.
fn rates<const N: usize>(
    model: &mut dyn CausalLm,
    kv: &mut KvCache,
    batches: [&ForwardBatch; N],
) -> [f64; N] {
    let mut best = [f64::MAX; N];
    let begin = Instant::now();
    let mut runs = 0;
    while runs < 4 || begin.elapsed().as_secs_f64() < SECONDS {
        for (batch, best) in batches.iter().zip(&mut best) {
            // The first run after another batch finds other weights in the caches.
            for _ in 0..RUNS_TOGETHER {
                let start = Instant::now();
                model.forward(batch, kv).expect("the batch is whole");
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        runs += 1;
    }
    std::array::from_fn(|index| batches[index].tokens.len() as f64 / best[index])
}

/// Bytes per second that `threads` threads read, best of several runs.
fn bandwidth(threads: usize) -> f64 {
    let words = vec![1_u64; BANDWIDTH_BYTES / 8];
    let read = |words: &[u64]| {
        let mut sums = [0_u64; 32];
        for words in words.as_chunks::<32>().0 {
            sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        }
        std::hint::black_box(sums);
    };
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for words in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(move || read(words));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    BANDWIDTH_BYTES as f64 / best
}

fn measure(
    (dir, adapters): (&Path, &[Arc<Adapter>]),
    format: &str,
    threads: usize,
    cases: &[String],
) {
    let quantization = match format {
        "q8_0" => Some(Quantization::Q8_0),
        "q6_k" => Some(Quantization::Q6K),
        "q4_k" => Some(Quantization::Q4K),
        "q4_0" => Some(Quantization::Q4_0),
        _ => None,
    };
    let options = LoadOptions { quantization, ..LoadOptions::default() };
    let start = Instant::now();
    let mut model = models::load(dir, &options).expect("loads");
    let megabytes = model.weights_bytes() >> 20;
    println!("{format}: {megabytes} MiB, loaded in {:.2} s", start.elapsed().as_secs_f64());
    let blocks = 32 * CONTEXT.div_ceil(BLOCK_TOKENS);
    let shape = KvShape { blocks, block_tokens: BLOCK_TOKENS, format: model.kv_format() };
    let mut kv = KvCache::new(model.config(), shape, &Device::Cpu).expect("fits");
    let bandwidth = bandwidth(threads);
    println!("  tok/s           base  one adapter  distinct    weights' share of the bandwidth");
    for (name, sequences, rows) in
        [("prefill-256", 1, CONTEXT), ("decode-1", 1, 1), ("decode-8", 8, 1), ("decode-32", 32, 1)]
    {
        let is_case = |a: &str| a.starts_with("prefill") || a.starts_with("decode");
        if cases.iter().any(|a| is_case(a)) && !cases.iter().any(|a| a == name) {
            continue;
        }
        let base = batch(sequences, rows, CONTEXT);
        let (mut one, mut distinct) = (base.clone(), base.clone());
        one.adapters = vec![Some(Arc::clone(&adapters[0])); sequences];
        distinct.adapters = adapters[..sequences].iter().cloned().map(Some).collect();
        let [base, one, distinct] = rates(&mut *model, &mut kv, [&base, &one, &distinct]);
        let steps = base / (sequences * rows) as f64;
        let share = 100.0 * steps * model.weights_bytes() as f64 / bandwidth;
        println!("  {name:12} {base:8.1}     {one:8.1}  {distinct:8.1}    {share:5.1} %");
    }
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let is_named = |name: &str| arguments.iter().any(|argument| argument == name);
    let config = match () {
        () if is_named("1b") => BILLION,
        () if is_named("moe") => EXPERTS,
        () => TINY,
    };
    let threads = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(2);
    let formats = ["f16", "q8_0", "q6_k", "q4_k", "q4_0"];
    let named = |format: &&str| arguments.iter().any(|a| a == *format);
    let some = formats.iter().any(named);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut state = 1;
    write_model(dir.path(), config, &mut state);
    let config = ModelConfig::from_dir(dir.path()).expect("was just written");
    let adapters: Vec<_> = (0..32)
        .map(|index| write_adapter(&dir.path().join(index.to_string()), &config, &mut state))
        .collect();
    println!("{threads} threads, {:.1} GB/s of memory read", bandwidth(threads) / 1e9);
    let mut pool = Pool::new(threads).expect("threads");
    pool.install(|| {
        for format in formats.into_iter().filter(|format| !some || named(format)) {
            measure((dir.path(), &adapters), format, threads, &arguments);
        }
    });
}
