//! Base models as functions of a packed batch: configuration, weights, forward.
//!
//! Parts: [`config`] (Hugging Face's `config.json`), [`weights`] (safetensors and `gguf`; the one mmap),
//! [`batch`] (the input of a step), [`kv_cache`] (paged keys and values), `layers` (shared by all
//! architectures), `arch` (one file per architecture), `parallel` (one model on several ranks),
//! [`registry`] (name to constructor).
//!
//! A model never schedules, samples, keeps requests or waits; the same batch and cache give the
//! same bits, and a row's bits do not depend on the other rows.

#![deny(unsafe_code)]

mod arch;
pub mod batch;
pub mod config;
pub mod device;
pub mod error;
mod gguf;
pub mod kv_cache;
mod layers;
mod parallel;
pub mod registry;
#[expect(unsafe_code, reason = "the one mmap outside kernels")]
pub mod weights;

use std::num::NonZeroUsize;

use candle_core::Tensor;
use kernels::WeightFormat;

pub use candle_core::Device;

pub use batch::{BatchLimits, ForwardBatch, SequenceSpan};
pub use config::ModelConfig;
pub use device::{DeviceChoice, Placement};
pub use error::{BatchError, ModelError};
pub use kernels::{KvFormat, RopeScaling};
pub use kv_cache::{KvCache, KvShape};
pub use parallel::TensorParallel;
pub use registry::{Architecture, load};
pub use weights::gguf_tokenizer;

/// What weights of linear layers are rounded to when they are loaded. Norms stay as they are, and so do
/// an embedding of its own and adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quantization {
    /// Eight bits: 8.5 bits a weight.
    Q8_0,
    /// Six bits: 6.5625 bits a weight.
    Q6K,
    /// Four bits with scales and minima: 4.625 bits a weight.
    Q4K,
    /// Four bits with scales: 4.5 bits a weight.
    Q4_0,
}

impl Quantization {
    /// Format of the layers.
    pub(crate) fn of_layers(self) -> WeightFormat {
        match self {
            Self::Q8_0 => WeightFormat::Q8_0,
            Self::Q6K => WeightFormat::Q6K,
            Self::Q4K => WeightFormat::Q4K,
            Self::Q4_0 => WeightFormat::Q4_0,
        }
    }

    /// Format of the head, which may be the embedding too. It takes most harm from four bits, so it gets
    /// six, as GGML's own quantizer does it.
    pub(crate) fn of_head(self) -> WeightFormat {
        match self {
            Self::Q8_0 => WeightFormat::Q8_0,
            Self::Q6K | Self::Q4K | Self::Q4_0 => WeightFormat::Q6K,
        }
    }
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where weights live and the forward runs.
    pub device: Device,
    /// `None` keeps every weight exactly as the checkpoint has it.
    pub quantization: Option<Quantization>,
    /// Longest context that will be asked for; `None` for the longest of the checkpoint. Models with
    /// LongRoPE have other frequencies where this is above the context of their pretraining.
    pub context_tokens_max: Option<NonZeroUsize>,
    /// Several ranks that share the model; `None` for the calling thread alone.
    pub parallel: Option<TensorParallel>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, quantization: None, context_tokens_max: None, parallel: None }
    }
}

/// A causal language model.
pub trait CausalLm: Send {
    /// What the model is.
    fn config(&self) -> &ModelConfig;

    /// How keys and values are best kept: as exactly as the weights are.
    fn kv_format(&self) -> KvFormat;

    /// Where the model lives; the KV cache must be there too.
    fn device(&self) -> &Device;

    /// Bytes of weights held in memory.
    fn weights_bytes(&self) -> u64;

    /// What adapters may attach to, and how they are to be laid out for this model.
    fn adapter_shape(&self) -> lora::ModelShape {
        self.config().model_shape()
    }

    /// Allocates a KV cache where the model wants it.
    ///
    /// # Errors
    /// As of [`KvCache::new`].
    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, ModelError> {
        KvCache::new(self.config(), shape, self.device())
    }

    /// Bytes of such a cache; `None` if that overflows.
    fn kv_bytes(&self, shape: KvShape) -> Option<u64> {
        KvCache::bytes(self.config(), shape)
    }

    /// Runs all rows of `batch`, writes their keys and values to `kv`, and returns the logits of
    /// `batch.logits_rows`, f32 `[logits_rows, vocab_size]`. Runs over the
    /// installed [`kernels::Pool`].
    ///
    /// # Errors
    /// An inconsistent batch, before anything is computed or written.
    fn forward(&mut self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<Tensor, ModelError>;

    /// [`Self::forward`] with what the head reads of `batch.hidden_rows` beside the logits: the last
    /// layer's output behind the final norm, f32 `[hidden_rows, hidden_size]`.
    ///
    /// # Errors
    /// As of [`Self::forward`].
    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError>;
}
