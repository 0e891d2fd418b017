//! Base models as functions of a packed batch: configuration, weights, forward.
//!
//! Parts: [`config`] (Hugging Face's `config.json`), [`weights`] (safetensors; the one mmap),
//! [`batch`] (the input of a step), [`kv_cache`] (paged keys and values), `layers` (shared by all
//! architectures), `arch` (one file per architecture), [`registry`] (name to constructor).
//!
//! A model never schedules, samples, keeps requests or waits; the same batch and cache give the
//! same bits, and a row's bits do not depend on the other rows.

#![deny(unsafe_code)]

mod arch;
pub mod batch;
pub mod config;
pub mod error;
pub mod kv_cache;
mod layers;
pub mod registry;
#[expect(unsafe_code, reason = "the one mmap outside kernels")]
pub mod weights;

use candle_core::{Device, Tensor};

pub use batch::{BatchLimits, ForwardBatch, SequenceSpan};
pub use config::ModelConfig;
pub use error::{BatchError, ModelError};
pub use kv_cache::KvCache;
pub use registry::{Architecture, load};

/// What weights of linear layers are rounded to when they are loaded. Embeddings, norms and a head that
/// is the embedding stay as they are; so do adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quantization {
    /// Blocks of 32 inputs in eight bits with one f16 scale, as GGML has it: 8.5 bits a weight.
    Q8_0,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where weights live and the forward runs.
    pub device: Device,
    /// `None` keeps every weight exactly as the checkpoint has it.
    pub quantization: Option<Quantization>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, quantization: None }
    }
}

/// A causal language model.
pub trait CausalLm: Send {
    /// What the model is.
    fn config(&self) -> &ModelConfig;

    /// Where the model lives; the KV cache must be there too.
    fn device(&self) -> &Device;

    /// Bytes of weights held in memory.
    fn weights_bytes(&self) -> u64;

    /// Runs all rows of `batch`, writes their keys and values to `kv`, and returns the logits of
    /// `batch.logits_rows`, f32 `[logits_rows, vocab_size]`. Runs in the current rayon pool.
    ///
    /// # Errors
    /// An inconsistent batch, before anything is computed or written.
    fn forward(&mut self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<Tensor, ModelError>;
}
