//! Models on a CUDA device against the reference, adapters mixed in one batch. They do nothing unless
//! `MORTISE_TEST_CUDA=1` asks for a device; then one that is not there is a failure.

use models::{Device, DeviceChoice, LoadOptions, ModelError, Quantization};

use crate::fixture;
use crate::runner::{Fixture, Plan, run};

/// Largest difference of a logit from the reference, in f32 throughout.
const TOLERANCE: f32 = 2e-3;
/// Largest root mean square of the error where weights are rounded, as a share of the logits' own.
const ROUNDED_TOLERANCE: f64 = 0.1;

fn asked_for() -> Option<Device> {
    let wanted = std::env::var_os("MORTISE_TEST_CUDA").is_some_and(|value| value == "1");
    wanted.then(|| DeviceChoice::Cuda.place().expect("MORTISE_TEST_CUDA=1 needs a device").device)
}

/// Largest error, and root mean square of the errors as a share of the logits' own, over the prompts of
/// all cases run together.
fn errors(fixture: &mut Fixture) -> (f32, f64) {
    let plan = Plan { block_tokens: 16, chunks: vec![7, 1, 30], stagger: 2 };
    let cases = [5, 1, 8, 0, 2, 7, 3, 6, 4];
    let (outcomes, distinct) = run(fixture, &cases, &plan);
    assert_eq!(distinct, 8, "all adapters shared a forward");
    let (mut largest, mut off, mut all) = (0.0_f32, 0.0_f64, 0.0_f64);
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let case = &fixture.cases[*case];
        let expected = fixture.expected_logits(case);
        let found = &outcome.logits[case.prompt.len() - expected.len()..case.prompt.len()];
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            largest = largest.max((found - expected).abs());
            off += f64::from(found - expected).powi(2);
            all += f64::from(*expected).powi(2);
        }
    }
    (largest, (off / all).sqrt())
}

#[test]
fn devices_agree_with_transformers() {
    let Some(device) = asked_for() else { return };
    for architecture in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"] {
        let options = LoadOptions { device: device.clone(), ..LoadOptions::default() };
        let (largest, _) = errors(&mut Fixture::load_with(architecture, &options));
        println!("{architecture}: logits within {largest:e}");
        assert!(largest < TOLERANCE, "{architecture}: logits differ by {largest}");
    }
}

#[test]
fn rounded_weights_are_close_on_devices() {
    let Some(device) = asked_for() else { return };
    for architecture in ["llama", "mistral"] {
        let quantization = Some(Quantization::Q8_0);
        let options =
            LoadOptions { device: device.clone(), quantization, ..LoadOptions::default() };
        let (_, error) = errors(&mut Fixture::load_with(architecture, &options));
        println!("{architecture}: {:.2} %", error * 100.0);
        assert!(error < ROUNDED_TOLERANCE && error > 0.0, "{architecture}: {error}");
    }
}

#[test]
fn what_devices_lack_is_refused_by_name() {
    let Some(device) = asked_for() else { return };
    let check = |architecture: &str, quantization, expect: &str| {
        let options =
            LoadOptions { device: device.clone(), quantization, ..LoadOptions::default() };
        let error = models::load(&fixture(architecture), &options).err().expect("refused");
        assert!(matches!(error, ModelError::Device { .. }), "{error}");
        assert!(error.to_string().contains(expect), "{error}");
    };
    check("qwen3_moe", None, "experts");
    check("llama", Some(Quantization::Q4K), "q8_0");
}
