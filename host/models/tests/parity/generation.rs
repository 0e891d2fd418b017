//! Logits and greedy text of each architecture, its base and its eight adapters: alone, and all in
//! one batch.

use std::fs;
use std::num::NonZeroUsize;

use models::LoadOptions;

use crate::fixture;
use crate::runner::{Fixture, Outcome, Plan, run};

/// Largest difference of a logit from the reference.
const TOLERANCE: f32 = 1e-3;

/// Loads an architecture and checks its cases against the reference, alone and mixed.
fn check(architecture: &str) {
    let mut fixture = Fixture::load(architecture);
    assert_eq!(fixture.cases.len(), 9, "a base and eight adapters");
    let whole = Plan { block_tokens: 16, chunks: vec![usize::MAX], stagger: 0 };
    let alone: Vec<Outcome> =
        (0..9).map(|case| run(&mut fixture, &[case], &whole).0.remove(0)).collect();
    for (case, outcome) in fixture.cases.iter().zip(&alone) {
        check_reference(&fixture, case, outcome);
    }
    let mixed = [
        Plan { block_tokens: 16, chunks: vec![usize::MAX], stagger: 0 },
        Plan { block_tokens: 5, chunks: vec![7, 1, 3], stagger: 2 },
        Plan { block_tokens: 32, chunks: vec![1], stagger: 0 },
    ];
    for plan in &mixed {
        // The adapters alone, eight requests, and then with a request for the base among them.
        for cases in [vec![1, 2, 3, 4, 5, 6, 7, 8], vec![5, 1, 8, 0, 2, 7, 3, 6, 4]] {
            let (outcomes, distinct) = run(&mut fixture, &cases, plan);
            assert_eq!(distinct, 8, "all adapters shared a forward");
            for (case, outcome) in cases.iter().zip(&outcomes) {
                let name = &fixture.cases[*case].name;
                assert_eq!(outcome.tokens, fixture.cases[*case].continuation, "{name}, {plan:?}");
                assert_same_bits(outcome, &alone[*case], name);
            }
        }
    }
}

fn check_reference(fixture: &Fixture, case: &crate::runner::Case, outcome: &Outcome) {
    let expected = fixture.expected_logits(case);
    assert!(!expected.is_empty());
    let found = &outcome.logits[case.prompt.len() - expected.len()..case.prompt.len()];
    let mut largest = 0.0_f32;
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        largest = largest.max((found - expected).abs());
    }
    println!("{}: logits within {largest:e}", case.name);
    assert!(largest < TOLERANCE, "{}: logits differ by {largest}", case.name);
    assert_eq!(case.continuation.len(), 64);
    assert_eq!(outcome.tokens, case.continuation, "{}", case.name);
}

pub(crate) fn assert_same_bits(found: &Outcome, expected: &Outcome, name: &str) {
    assert_eq!(found.logits.len(), expected.logits.len());
    for (row, (found, expected)) in found.logits.iter().zip(&expected.logits).enumerate() {
        let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}: row {row} depends on its company");
    }
}

#[test]
fn llama_agrees_with_transformers() {
    check("llama");
}

#[test]
fn mistral_agrees_with_transformers() {
    check("mistral");
}

#[test]
fn qwen2_agrees_with_transformers() {
    check("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers() {
    check("qwen3");
}

#[test]
fn phi3_agrees_with_transformers() {
    check("phi3");
}

#[test]
fn qwen3_moe_agrees_with_transformers() {
    check("qwen3_moe");
}

#[test]
fn gemma2_agrees_with_transformers() {
    check("gemma2");
}

#[test]
fn gemma3_agrees_with_transformers() {
    check("gemma3_text");
}

#[test]
fn short_contexts_have_other_frequencies() {
    let short = fixture("phi3").join("short");
    let dir = tempfile::tempdir().unwrap();
    for from in [fixture("phi3").join("model.safetensors"), short.join("config.json")] {
        fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let whole = Plan { block_tokens: 16, chunks: vec![usize::MAX], stagger: 0 };
    for (context_tokens_max, agrees) in [(120, true), (121, false)] {
        let context_tokens_max = NonZeroUsize::new(context_tokens_max);
        let options = LoadOptions { context_tokens_max, ..LoadOptions::default() };
        let mut fixture = Fixture::load_from(dir.path(), &short, &options);
        let outcome = run(&mut fixture, &[0], &whole).0.remove(0);
        if agrees {
            check_reference(&fixture, &fixture.cases[0], &outcome);
        } else {
            assert_ne!(outcome.tokens, fixture.cases[0].continuation);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let outcome = |threads: usize| {
        let mut pool = kernels::Pool::new(threads).unwrap();
        pool.install(|| {
            let mut fixture = Fixture::load("qwen3");
            let plan = Plan { block_tokens: 16, chunks: vec![usize::MAX], stagger: 0 };
            run(&mut fixture, &[0, 1, 2, 3, 4, 5, 6, 7, 8], &plan).0
        })
    };
    let one = outcome(1);
    for threads in [2, 5] {
        for (found, expected) in outcome(threads).iter().zip(&one) {
            assert_same_bits(found, expected, "threads");
        }
    }
}
