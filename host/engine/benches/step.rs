//! What a step costs besides the model: planning, batching, sampling and telling, by number of
//! sequences and by how tokens are chosen; what guesses save; what choices of one prompt share.
//!
//! `cargo bench -p engine` runs a model that answers at once, so that all there is to see is the
//! engine's own part; `cargo bench -p engine -- DIR` runs the model in a directory instead. It
//! asserts nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use engine::{Engine, EngineConfig, EngineEvent, EngineHandle, EngineRequest, SpeculativeConfig};
use models::{
    CausalLm, ForwardBatch, KvCache, KvFormat, LoadOptions, ModelConfig, ModelError, Quantization,
};
use prometheus_client::registry::Registry;
use request::SamplingParams;

const CONTEXT: usize = 128;
const TOKENS: u32 = 96;
const VOCABULARY: usize = 32_000;

/// Rows of fixed numbers, handed out without a copy; counts the rows it was asked to run.
struct Ready {
    config: ModelConfig,
    rows: Tensor,
    ran: Arc<AtomicU64>,
}

impl CausalLm for Ready {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn weights_bytes(&self) -> u64 {
        0
    }

    fn kv_format(&self) -> KvFormat {
        KvFormat::F32
    }

    fn forward(&mut self, batch: &ForwardBatch, _: &mut KvCache) -> Result<Tensor, ModelError> {
        self.ran.fetch_add(batch.tokens.len() as u64, Ordering::Relaxed);
        let rows = self.rows.narrow(0, 0, batch.logits_rows.len());
        Ok(rows.expect("there are as many rows as a step may have"))
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        // Nothing here asks for hidden states, so there are none to give.
        let logits = self.forward(batch, kv)?;
        let none = Tensor::zeros((0, self.config.hidden_size), logits.dtype(), logits.device());
        Ok((logits, none.expect("an empty tensor")))
    }
}

/// A model, and how many rows it has run if it counts them.
fn model(dir: Option<&str>) -> (Box<dyn CausalLm>, Arc<AtomicU64>) {
    let ran = Arc::default();
    if let Some(dir) = dir {
        let quantization = Some(Quantization::Q8_0);
        let options = LoadOptions { quantization, ..LoadOptions::default() };
        return (models::load(Path::new(dir), &options).expect("loads"), ran);
    }
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "intermediate_size": 8, "vocab_size": 32000, "max_position_embeddings": 4096,
        "tie_word_embeddings": true}"#;
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("config.json"), config).expect("writes");
    let config = ModelConfig::from_dir(dir.path()).expect("is supported");
    let mut state = 1_u32;
    let logits: Vec<f32> = (0..128 * VOCABULARY)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // About as spread out as a model's.
            (0..4).map(|part| ((state >> (8 * part)) & 0xff) as f32).sum::<f32>() / 64.0 - 8.0
        })
        .collect();
    let rows = Tensor::from_vec(logits, (128, VOCABULARY), &Device::Cpu).expect("is whole");
    (Box::new(Ready { config, rows, ran: Arc::clone(&ran) }), ran)
}

/// Sum and count of a histogram.
fn histogram(engine: &EngineHandle, name: &str) -> (f64, f64) {
    let mut registry = Registry::default();
    engine.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
    let value = |suffix: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}_{suffix} ")));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("is there")
    };
    (value("sum"), value("count"))
}

fn request(prompt: Vec<u32>, sampling: &SamplingParams, seed: u64) -> EngineRequest {
    EngineRequest {
        prompt,
        sampling: SamplingParams { seed, ..sampling.clone() },
        adapter: None,
        cache_salt: String::new(),
        tenant: String::new(),
        priority: 0,
        start_within: None,
    }
}

/// Runs all requests to their ends; tokens per second.
fn run(engine: &EngineHandle, requests: Vec<EngineRequest>) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
    let start = Instant::now();
    let streams: Vec<_> = requests
        .into_iter()
        .map(|request| engine.submit(request).expect("there is room"))
        .collect();
    let tokens = runtime.block_on(async {
        let mut tokens = 0;
        for mut stream in streams {
            while let Some(event) = stream.next().await {
                tokens += u32::from(matches!(event, EngineEvent::Token { .. }));
            }
        }
        tokens
    });
    f64::from(tokens) / start.elapsed().as_secs_f64()
}

fn prompt(index: usize, length: usize) -> Vec<u32> {
    (0..length).map(|at| ((index * 7919 + at * 31) % 30_000) as u32 + 3).collect()
}

fn overhead(dir: Option<&str>) {
    println!("sequences  choice      step ms  forward ms  rest us  rest %");
    let greedy = SamplingParams {
        temperature: 0.0,
        max_tokens: TOKENS,
        ignore_eos: true,
        ..SamplingParams::default()
    };
    let drawn = SamplingParams { temperature: 0.8, ..greedy.clone() };
    let choices = [
        ("greedy", greedy.clone()),
        ("drawn", drawn.clone()),
        ("top-k, -p", SamplingParams { top_p: 0.9, top_k: 40, ..drawn.clone() }),
        ("top-p 0.9", SamplingParams { top_p: 0.9, ..drawn.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..drawn.clone() }),
        ("penalties", SamplingParams { repetition_penalty: 1.1, ..greedy.clone() }),
        ("logprobs 5", SamplingParams { logprobs: Some(5), ..greedy }),
    ];
    for sequences in [1, 8, 32, 64] {
        for (name, sampling) in &choices {
            let engine = Engine::start(model(dir).0, EngineConfig::default()).expect("starts");
            let requests = |round: usize| {
                let one =
                    |index| request(prompt(round * 64 + index, CONTEXT), sampling, index as u64);
                (0..sequences).map(one).collect()
            };
            // Prompts come first in their steps; the second round is measured.
            run(&engine, requests(0));
            let before = ["mortise_engine_step_seconds", "mortise_engine_forward_seconds"]
                .map(|name| histogram(&engine, name));
            run(&engine, requests(1));
            let after = ["mortise_engine_step_seconds", "mortise_engine_forward_seconds"]
                .map(|name| histogram(&engine, name));
            let steps = after[0].1 - before[0].1;
            let [step, forward] = [0, 1].map(|at| (after[at].0 - before[at].0) / steps);
            let rest = step - forward;
            println!(
                "{sequences:9}  {name:10}  {:7.3}  {:10.3}  {:7.1}  {:6.2}",
                step * 1e3,
                forward * 1e3,
                rest * 1e6,
                rest / step * 100.0
            );
        }
    }
}

fn guesses(dir: &str) {
    println!("tokens per second: sequences, without guesses, with, guessed, right");
    // An answer that repeats its prompt, which is where prompt lookup is at home.
    let sampling = SamplingParams {
        temperature: 0.0,
        max_tokens: 128,
        ignore_eos: true,
        ..SamplingParams::default()
    };
    for sequences in [1, 4, 16] {
        let rates = [None, Some(SpeculativeConfig::default())].map(|speculative| {
            let config = EngineConfig { speculative, ..EngineConfig::default() };
            let engine = Engine::start(model(Some(dir)).0, config).expect("starts");
            let requests = || {
                let one = |index| request(prompt(index, 32).repeat(4), &sampling, 0);
                (0..sequences).map(one).collect()
            };
            run(&engine, requests());
            (run(&engine, requests()), engine.metrics().drafts())
        });
        let (drafted, accepted) = rates[1].1;
        println!("{sequences:9} {:9.1} {:9.1} {drafted} {accepted}", rates[0].0, rates[1].0);
    }
}

fn choices() {
    println!("rows run for a prompt of 250 tokens and so many choices, one token each");
    for count in [1, 2, 8, 32] {
        let (model, ran) = model(None);
        let engine = Engine::start(model, EngineConfig::default()).expect("starts");
        let sampling = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
        let one = |index| request(prompt(0, 250), &sampling, index);
        run(&engine, (0..count).map(one).collect());
        println!("{count:9} {:9}", ran.load(Ordering::Relaxed));
    }
}

fn main() {
    let dir = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    match &dir {
        Some(dir) => guesses(dir),
        None => choices(),
    }
    overhead(dir.as_deref());
}
