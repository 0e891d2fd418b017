//! Models whose weights are rounded on loading: close to the reference, and as free of their company as
//! the exact ones.

use models::{LoadOptions, Quantization};

use crate::ARCHITECTURES;
use crate::generation::assert_same_bits;
use crate::runner::{Fixture, Outcome, Plan, run};

/// Largest root mean square of the error of logits, as a share of the logits' own. The fixtures' random
/// weights are the worst case, since nothing in them makes up for noise: rounding the same weights and
/// activations in the reference implementation gives 6.7 % for llama's base, as here.
const ERROR_MAX: f64 = 0.1;
/// The same where a router chooses: rounded activations send a row to another expert now and then, which
/// random experts have nothing in common with.
const ERROR_MAX_ROUTED: f64 = 0.6;

fn quantized(architecture: &str) -> Fixture {
    let quantization = Some(Quantization::Q8_0);
    Fixture::load_with(architecture, &LoadOptions { quantization, ..LoadOptions::default() })
}

/// Error of the prompt's logits against the reference, relative to their size.
fn error(fixture: &Fixture, case: usize, outcome: &Outcome) -> f64 {
    let case = &fixture.cases[case];
    let expected = fixture.expected_logits(case);
    let found = &outcome.logits[case.prompt.len() - expected.len()..case.prompt.len()];
    let square = |value: f32| f64::from(value) * f64::from(value);
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let (off, all) = pairs.fold((0.0, 0.0), |(off, all), (found, expected)| {
        (off + square(found - expected), all + square(*expected))
    });
    (off / all).sqrt()
}

fn check(architecture: &str) {
    let mut fixture = quantized(architecture);
    let routed = fixture.model.config().experts.is_some();
    let error_max = if routed { ERROR_MAX_ROUTED } else { ERROR_MAX };
    let whole = Plan { block_tokens: 16, chunks: vec![usize::MAX], stagger: 0 };
    let alone: Vec<Outcome> =
        (0..9).map(|case| run(&mut fixture, &[case], &whole).0.remove(0)).collect();
    for (case, outcome) in alone.iter().enumerate() {
        let error = error(&fixture, case, outcome);
        println!("{architecture}, {}: {:.2} %", fixture.cases[case].name, error * 100.0);
        assert!(error < error_max, "{}: {error}", fixture.cases[case].name);
        assert!(error > 0.0, "nothing was rounded");
    }
    let cut = Plan { block_tokens: 5, chunks: vec![7, 1, 3], stagger: 2 };
    for plan in [&whole, &cut] {
        let cases = [5, 1, 8, 0, 2, 7, 3, 6, 4];
        let (outcomes, distinct) = run(&mut fixture, &cases, plan);
        assert_eq!(distinct, 8, "all adapters shared a forward");
        for (case, outcome) in cases.iter().zip(&outcomes) {
            assert_same_bits(outcome, &alone[*case], &fixture.cases[*case].name);
        }
    }
    let exact = Fixture::load(architecture).model.weights_bytes();
    assert!(fixture.model.weights_bytes() < exact, "rounding saves memory");
}

#[test]
fn eight_bits_are_close_and_independent_of_company() {
    for architecture in ARCHITECTURES {
        check(architecture);
    }
}
