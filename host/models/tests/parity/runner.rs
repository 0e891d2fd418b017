//! A loop around a model: requests with block tables of their own, advanced in packed batches.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use models::{CausalLm, ForwardBatch, KvFormat, KvShape, LoadOptions, SequenceSpan};
use serde::Deserialize;

use crate::fixture;

/// One prompt, and what the reference makes of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) adapter: Option<String>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) continuation: Vec<u32>,
}

/// A fixture, loaded.
pub(crate) struct Fixture {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) cases: Vec<Case>,
    pub(crate) adapters: Vec<Option<Arc<lora::Adapter>>>,
    /// How its cache keeps numbers; whole floats, unless a test wants others.
    pub(crate) kv: KvFormat,
    expected: Vec<u8>,
}

impl Fixture {
    pub(crate) fn load(name: &str) -> Self {
        Self::load_with(name, &LoadOptions::default())
    }

    pub(crate) fn load_with(name: &str, options: &LoadOptions) -> Self {
        let dir = fixture(name);
        Self::load_from(&dir, &dir, options)
    }

    /// A model of one directory, and what another expects of it.
    pub(crate) fn load_from(dir: &Path, expected: &Path, options: &LoadOptions) -> Self {
        let model = models::load(dir, options).unwrap();
        let shape = model.adapter_shape();
        let text = std::fs::read_to_string(expected.join("expected.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        let adapter = |name: &String| {
            let dir = dir.join("adapters").join(name);
            Arc::new(lora::Adapter::from_dir(&dir, &shape).unwrap())
        };
        let adapters = cases.iter().map(|case| case.adapter.as_ref().map(adapter)).collect();
        let expected = std::fs::read(expected.join("expected.safetensors")).unwrap();
        Self { model, cases, adapters, kv: KvFormat::F32, expected }
    }

    /// Logits of the reference at the last positions of a case's prompt.
    pub(crate) fn expected_logits(&self, case: &Case) -> Vec<Vec<f32>> {
        let file = safetensors::SafeTensors::deserialize(&self.expected).unwrap();
        let tensor = file.tensor(&case.name).unwrap();
        let floats = tensor.data().as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v));
        let width = self.model.config().vocab_size;
        floats.collect::<Vec<_>>().chunks(width).map(<[f32]>::to_vec).collect()
    }
}

/// How requests are run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) block_tokens: usize,
    /// Rows of each prefill chunk, taken in turn.
    pub(crate) chunks: Vec<usize>,
    /// Steps between the arrivals of two requests.
    pub(crate) stagger: usize,
}

/// What one request gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Logits of every row: the prompt's, then each new token's.
    pub(crate) logits: Vec<Vec<f32>>,
    pub(crate) tokens: Vec<u32>,
}

struct Running {
    case: usize,
    tokens: Vec<u32>,
    computed: usize,
    block_table: Vec<u32>,
    wanted: usize,
    outcome: Outcome,
}

/// Greedily continues the cases, all in one cache, and returns what each gave and the largest number
/// of distinct adapters in one forward.
pub(crate) fn run(fixture: &mut Fixture, cases: &[usize], plan: &Plan) -> (Vec<Outcome>, usize) {
    let config = fixture.model.config().clone();
    let lengths: Vec<usize> = cases
        .iter()
        .map(|&case| fixture.cases[case].prompt.len() + fixture.cases[case].continuation.len())
        .collect();
    let needed: Vec<usize> = lengths.iter().map(|n| n.div_ceil(plan.block_tokens)).collect();
    let blocks = needed.iter().sum::<usize>() + 3;
    let shape = KvShape { format: fixture.kv, ..kv_shape(blocks, plan.block_tokens) };
    let mut kv = fixture.model.kv_cache(shape).unwrap();
    // A block is as good as any other: hand them out in a scattered order.
    let mut free: Vec<u32> = (0..blocks as u32).collect();
    free.sort_by_key(|block| block.wrapping_mul(2_654_435_761) >> 7);
    let mut running: Vec<Running> = cases
        .iter()
        .zip(&needed)
        .map(|(&case, &needed)| Running {
            case,
            tokens: fixture.cases[case].prompt.clone(),
            computed: 0,
            block_table: free.split_off(free.len() - needed),
            wanted: fixture.cases[case].continuation.len(),
            outcome: Outcome::default(),
        })
        .collect();
    let mut distinct_max = 0;
    for step in 0.. {
        let (batch, members) = pack(fixture, &running, plan, step);
        if members.is_empty() && running.iter().all(|request| request.wanted == 0) {
            break;
        }
        if members.is_empty() {
            continue;
        }
        let mut distinct: Vec<_> =
            batch.adapters.iter().flatten().map(|a| a.generation()).collect();
        distinct.sort();
        distinct.dedup();
        distinct_max = distinct_max.max(distinct.len());
        let logits = fixture.model.forward(&batch, &mut kv).unwrap();
        assert_eq!(logits.dims(), [batch.tokens.len(), config.vocab_size]);
        take(&mut running, &members, &logits);
    }
    (running.into_iter().map(|request| request.outcome).collect(), distinct_max)
}

/// The rows of a step: later requests first, so that arrival order is not batch order.
fn pack(
    fixture: &Fixture,
    running: &[Running],
    plan: &Plan,
    step: usize,
) -> (ForwardBatch, Vec<(usize, usize)>) {
    let mut batch = ForwardBatch::default();
    let mut members = Vec::new();
    for (index, request) in running.iter().enumerate().rev() {
        let left = request.tokens.len() - request.computed;
        if left == 0 || step < index * plan.stagger {
            continue;
        }
        let count = left.min(plan.chunks[(step + index) % plan.chunks.len()]);
        let context_len = request.computed + count;
        batch.sequences.push(SequenceSpan {
            token_start: batch.tokens.len(),
            token_count: count,
            context_len,
            block_table: request.block_table.clone(),
        });
        batch.tokens.extend(&request.tokens[request.computed..context_len]);
        batch.positions.extend(request.computed as u32..context_len as u32);
        batch.adapters.push(fixture.adapters[request.case].clone());
        members.push((index, count));
    }
    batch.logits_rows = (0..batch.tokens.len() as u32).collect();
    (batch, members)
}

fn take(running: &mut [Running], members: &[(usize, usize)], logits: &Tensor) {
    let mut rows = logits.to_vec2::<f32>().unwrap().into_iter();
    for &(index, count) in members {
        let request = &mut running[index];
        request.computed += count;
        request.outcome.logits.extend(rows.by_ref().take(count));
        if request.computed == request.tokens.len() && request.wanted > 0 {
            let last = request.outcome.logits.last().unwrap();
            let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            request.outcome.tokens.push(best as u32);
            request.wanted -= 1;
            if request.wanted > 0 {
                request.tokens.push(best as u32);
            }
        }
    }
}

/// A cache of whole floats, as what is compared with the reference needs it.
pub(crate) fn kv_shape(blocks: usize, block_tokens: usize) -> KvShape {
    KvShape { blocks, block_tokens, format: KvFormat::F32 }
}
