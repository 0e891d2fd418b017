//! Tokens per second of a Llama, or of a Qwen3 with 64 experts, of random weights: prefill, and decode of 1, 8 and 32 sequences without
//! adapters, with one for all and with one each; beside them the share of the memory's bandwidth that
//! one sequence's decoding uses.
//!
//! `cargo bench -p models -- [tiny|1b|moe] [threads] [f16|q8_0|q6_k|q4_k|q4_0]... [decode-8]...`
//! writes a checkpoint (200 MB,
//! 2.5 GB, 520 MB) to a temporary directory; it asserts nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use kernels::Pool;
use lora::Adapter;
use models::{
    CausalLm, ForwardBatch, KvCache, KvShape, LoadOptions, ModelConfig, Quantization, SequenceSpan,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCK_TOKENS: usize = 16;
const CONTEXT: usize = 256;
/// How long each case is measured.
const SECONDS: f64 = 3.0;
/// Steps of one batch before the next has its turn.
const RUNS_TOGETHER: usize = 4;
/// Bytes that the memory's bandwidth is measured on, more than any cache holds.
const BANDWIDTH_BYTES: usize = 512 << 20;
const TINY: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
    "intermediate_size": 2048, "vocab_size": 32000, "max_position_embeddings": 4096,
    "tie_word_embeddings": true}"#;
const BILLION: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 4096,
    "tie_word_embeddings": true}"#;
const EXPERTS: &str = r#"{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 768,
    "num_hidden_layers": 4, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 2048, "moe_intermediate_size": 384, "num_experts": 64,
    "num_experts_per_tok": 8, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": true}"#;

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

fn write_model(dir: &Path, config: &str, state: &mut u32) {
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

fn write_adapter(dir: &Path, config: &ModelConfig, state: &mut u32) -> Arc<Adapter> {
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
fn batch(sequences: usize, rows: usize, context_len: usize) -> ForwardBatch {
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
