//! The models against what transformers and PEFT compute, and against broken checkpoints.
//!
//! Fixtures are written by `tests/fixtures/models/make.py` and `embeddings.py` beside it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod generation;
mod gguf;
mod gguf_file;
mod gguf_order;
mod hidden;
mod loading;
#[cfg(feature = "cuda")]
mod on_device;
mod parallel;
mod quantized;
mod refusals;
mod runner;

use std::path::PathBuf;

/// All fixtures.
const ARCHITECTURES: [&str; 8] =
    ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma2", "gemma3_text"];

/// Folder of one architecture's fixture. Whoever carries the tests to a machine without a checkout says
/// where the crate would be, as cargo does.
fn fixture(name: &str) -> PathBuf {
    let carried = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = carried.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    root.join("../../tests/fixtures/models").join(name)
}
