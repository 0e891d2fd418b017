//! Models that several ranks share: the logits of a model that is whole, whatever the number of ranks,
//! with adapters mixed in one batch; and what can't be shared.

use std::num::NonZeroUsize;
use std::sync::Arc;

use models::{BatchError, ForwardBatch, LoadOptions, ModelError, Quantization, TensorParallel};

use crate::fixture;
use crate::generation::assert_same_bits;
use crate::runner::{Fixture, Outcome, Plan, kv_shape, run};

/// Largest difference of a logit from the whole model's, as a share of the largest logit of the case:
/// sums of a row are cut at other places.
const TOLERANCE: f32 = 2e-5;

/// The same of the root mean square where activations are rounded to eight bits: what differs in the last
/// bit of a sum now and then is rounded the other way. Far below what rounding itself costs, see
/// `quantized`.
const ROUNDED_TOLERANCE: f32 = 0.015;

const ALL: [usize; 9] = [5, 1, 8, 0, 2, 7, 3, 6, 4];

fn options(ranks: usize, quantization: Option<Quantization>) -> LoadOptions {
    let count = |count| NonZeroUsize::new(count).unwrap();
    let parallel = Some(TensorParallel { ranks: count(ranks), threads: count(1) });
    LoadOptions { parallel, quantization, ..LoadOptions::default() }
}

fn plan() -> Plan {
    Plan { block_tokens: 5, chunks: vec![7, 1, 3], stagger: 2 }
}

fn largest(rows: &[Vec<f32>]) -> f32 {
    rows.iter().flatten().fold(0.0, |largest, logit| largest.max(logit.abs()))
}

/// Root mean square of the error of a prompt's logits, as a share of the logits' own.
fn rounded_error(found: &Outcome, expected: &Outcome, rows: usize) -> f32 {
    let square = |logit: f32| f64::from(logit) * f64::from(logit);
    let pairs = found.logits[..rows].iter().flatten().zip(expected.logits[..rows].iter().flatten());
    let (off, all) = pairs.fold((0.0, 0.0), |(off, all), (found, expected)| {
        (off + square(found - expected), all + square(*expected))
    });
    (off / all).sqrt() as f32
}

fn assert_close(found: &Outcome, expected: &Outcome, name: &str) -> f32 {
    assert_eq!(found.tokens, expected.tokens, "{name}");
    let size = largest(&expected.logits);
    let pairs = found.logits.iter().flatten().zip(expected.logits.iter().flatten());
    let error = pairs.fold(0.0_f32, |error, (a, b)| error.max((a - b).abs())) / size;
    assert!(error < TOLERANCE, "{name}: differs by {error}");
    error
}

/// Runs a fixture whole and on `ranks`, all adapters and the base in one batch.
fn check(architecture: &str, ranks: &[usize], quantization: Option<Quantization>) {
    let whole = LoadOptions { quantization, ..LoadOptions::default() };
    let mut whole = Fixture::load_with(architecture, &whole);
    let (expected, distinct) = run(&mut whole, &ALL, &plan());
    assert_eq!(distinct, 8, "all adapters shared a forward");
    for &ranks in ranks {
        let mut shared = Fixture::load_with(architecture, &options(ranks, quantization));
        let (found, _) = run(&mut shared, &ALL, &plan());
        let mut error = 0.0_f32;
        for (case, (found, expected)) in ALL.iter().zip(found.iter().zip(&expected)) {
            let name = format!("{architecture} on {ranks}, {}", whole.cases[*case].name);
            match ranks {
                1 => assert_same_bits(found, expected, &name),
                _ if quantization.is_some() => {
                    let rows = whole.cases[*case].prompt.len();
                    error = error.max(rounded_error(found, expected, rows));
                }
                _ => error = error.max(assert_close(found, expected, &name)),
            }
        }
        println!("{architecture} on {ranks} ranks, {quantization:?}: within {error:e}");
        assert!(error < ROUNDED_TOLERANCE);
        // A row is as free of its company as in a whole model.
        let (alone, _) = run(&mut shared, &[3], &plan());
        let place = ALL.iter().position(|case| *case == 3).unwrap();
        assert_same_bits(&alone[0], &found[place], architecture);
    }
}

#[test]
fn ranks_give_what_one_model_gives() {
    for architecture in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"] {
        check(architecture, &[1, 2, 4], None);
    }
    check("qwen3_moe", &[1, 2, 3, 4], None);
    // Three heads over one.
    check("phi3", &[1, 2, 3], None);
}

#[test]
fn rounded_weights_are_cut_at_blocks() {
    let eight = Some(Quantization::Q8_0);
    check("llama", &[1, 2], eight);
    check("mistral", &[1, 2, 4], eight);
    check("mistral", &[1, 4], Some(Quantization::Q4_0));
}

fn refusal(architecture: &str, ranks: usize, quantization: Option<Quantization>) -> String {
    let loaded = models::load(&fixture(architecture), &options(ranks, quantization));
    let error = loaded.err().expect("it can't be shared");
    assert!(matches!(error, ModelError::Parallel { .. }), "{error}");
    error.to_string()
}

#[test]
fn what_can_not_be_shared_is_named() {
    let check = |error: String, expect: &str| assert!(error.contains(expect), "{error}");
    check(refusal("phi3", 4, None), "on 4 ranks: 3 query heads over 1 key heads");
    check(refusal("llama", 5, None), "4 query heads over 2 key heads");
    let error = refusal("llama", 4, Some(Quantization::Q8_0));
    check(error, "columns 0..16 of o_proj, which do not begin and end at blocks of 32");
    let error = refusal("qwen3_moe", 2, Some(Quantization::Q8_0));
    check(error, "20 columns of an expert's down_proj are too few blocks of 32");
    check(refusal("llama", 2, Some(Quantization::Q4K)), "blocks of 256");
}

#[test]
fn hidden_states_and_bytes_are_those_of_the_whole() {
    let mut whole = Fixture::load("qwen2");
    let mut shared = Fixture::load_with("qwen2", &options(2, None));
    let prompt = whole.cases[1].prompt.clone();
    let batch = |fixture: &Fixture| ForwardBatch {
        tokens: prompt.clone(),
        positions: (0..prompt.len() as u32).collect(),
        sequences: vec![models::SequenceSpan {
            token_start: 0,
            token_count: prompt.len(),
            context_len: prompt.len(),
            block_table: (0..prompt.len().div_ceil(16) as u32).collect(),
        }],
        adapters: vec![fixture.adapters[1].clone()],
        logits_rows: vec![0],
        hidden_rows: vec![2, 0],
    };
    let shape = kv_shape(16, 16);
    let mut states = Vec::new();
    for fixture in [&mut whole, &mut shared] {
        let batch = batch(fixture);
        let mut kv = fixture.model.kv_cache(shape).unwrap();
        let (logits, hidden) = fixture.model.forward_hidden(&batch, &mut kv).unwrap();
        assert_eq!((logits.dims()[0], hidden.dims()[0]), (1, 2));
        states.push(hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        // Who waits for an adapter's bytes counts on this.
        assert_eq!(Arc::strong_count(fixture.adapters[1].as_ref().unwrap()), 2);
    }
    let error = states[0].iter().zip(&states[1]).map(|(a, b)| (a - b).abs());
    assert!(error.fold(0.0, f32::max) < 1e-4);
    // Two ranks both have the one key head.
    assert_eq!(shared.model.kv_bytes(shape), whole.model.kv_bytes(shape).map(|bytes| 2 * bytes));
    // Norms are held twice, and so are rows that are added to fill up panels of sixteen.
    let (one, two) = (whole.model.weights_bytes(), shared.model.weights_bytes());
    assert!(one <= two && two < one + one / 5, "{one} {two}");
}

#[test]
fn a_refused_batch_leaves_the_ranks_whole() {
    let mut whole = Fixture::load("llama");
    let mut shared = Fixture::load_with("llama", &options(2, None));
    let mut kv = shared.model.kv_cache(kv_shape(4, 16)).unwrap();
    let mut other = whole.model.kv_cache(kv_shape(4, 16)).unwrap();
    let good = ForwardBatch {
        tokens: vec![5, 6],
        positions: vec![0, 1],
        sequences: vec![models::SequenceSpan {
            token_start: 0,
            token_count: 2,
            context_len: 2,
            block_table: vec![1],
        }],
        adapters: vec![shared.adapters[1].clone()],
        logits_rows: vec![1],
        hidden_rows: Vec::new(),
    };
    let before = shared.model.forward(&good, &mut kv).unwrap().to_vec2::<f32>().unwrap();
    // An adapter that was laid out for one rank.
    let foreign = ForwardBatch { adapters: vec![whole.adapters[1].clone()], ..good.clone() };
    assert!(matches!(
        shared.model.forward(&foreign, &mut kv),
        Err(ModelError::Batch(BatchError::AdapterShape { sequence: 0 }))
    ));
    assert!(matches!(
        whole.model.forward(&good, &mut other),
        Err(ModelError::Batch(BatchError::AdapterShape { sequence: 0 }))
    ));
    for (model, kv) in [(&mut shared.model, &mut other), (&mut whole.model, &mut kv)] {
        let base = ForwardBatch { adapters: vec![None], ..good.clone() };
        assert!(matches!(
            model.forward(&base, kv),
            Err(ModelError::Batch(BatchError::KvCacheShape))
        ));
    }
    let lying = ForwardBatch { tokens: vec![5, 400], ..good.clone() };
    assert!(matches!(
        shared.model.forward(&lying, &mut kv),
        Err(ModelError::Batch(BatchError::Token { .. }))
    ));
    let after = shared.model.forward(&good, &mut kv).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(before, after);
}
