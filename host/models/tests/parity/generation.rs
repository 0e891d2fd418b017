//! Logits and greedy text of each architecture, its base and its eight adapters: alone, and all in
//! one batch.

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
