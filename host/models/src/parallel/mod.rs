//! One model on several ranks: each a thread with a part of every weight, of the adapters and of the
//! cache, and a pool of its own. They meet where a product is added up, twice a layer.
//!
//! Parts: [`split`] (who has what), `rank` (the threads). What the ranks exchange is `kernels`'
//! [`kernels::Communicator`].
//!
//! A row's bits depend on the number of ranks, for sums are cut otherwise, and on nothing else. One rank
//! gives the bits of a model that is not divided.

mod rank;
pub(crate) mod split;

use std::num::NonZeroUsize;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::{Communicator, KvFormat, ThreadGroup};
use lora::ModelShape;

use crate::device::check_format;
use crate::kv_cache::{KvPart, KvPlace};
use crate::layers::decoder::Decoder;
use crate::weights::Weights;
use crate::{
    BatchError, CausalLm, ForwardBatch, KvCache, KvShape, LoadOptions, ModelConfig, ModelError,
    Quantization,
};
use rank::Rank;
use split::{Split, divided_shape};

/// How a model is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorParallel {
    /// Ranks: on the CPU threads with a pool each, on CUDA a device each.
    pub ranks: NonZeroUsize,
    /// Threads of each rank's pool, its own included.
    pub threads: NonZeroUsize,
}

/// What a rank is to load.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) split: &'a Split,
    /// How adapters are laid out for the ranks.
    pub(crate) shape: &'a ModelShape,
    /// This rank among the others, where there are any.
    pub(crate) ranks: Option<&'a Arc<dyn Communicator>>,
}

/// A model that several ranks run.
#[derive(Debug)]
pub(crate) struct DividedModel {
    config: ModelConfig,
    shape: ModelShape,
    kv_format: KvFormat,
    weights_bytes: u64,
    ranks: Vec<Rank>,
    /// Where each rank keeps keys and values.
    places: Vec<KvPlace>,
    /// Makes the group good again after a failure.
    group: Arc<dyn Communicator>,
}

impl DividedModel {
    /// Loads each rank's part and starts its thread.
    pub(crate) fn load(
        config: ModelConfig,
        weights: &Weights,
        (options, parallel): (&LoadOptions, TensorParallel),
    ) -> Result<Self, ModelError> {
        let ranks = parallel.ranks.get();
        let block_len = match options.quantization.map(Quantization::of_layers) {
            Some(format) => format.block_len(),
            None => weights.layers_block_len(),
        };
        let splits = Split::all(&config, ranks, block_len)?;
        let shape = divided_shape(&config, &splits);
        let devices = devices(&options.device, ranks)?;
        let members = match &options.device {
            Device::Cpu => ThreadGroup::members(ranks),
            _ => kernels::nccl_group(&devices).map_err(|error| not_here(&config, error))?,
        };
        let mut decoders = Vec::with_capacity(ranks);
        for ((split, device), member) in splits.iter().zip(&devices).zip(&members) {
            let options = LoadOptions { device: device.clone(), ..options.clone() };
            let part = Part { split, shape: &shape, ranks: Some(member) };
            decoders.push(Decoder::load(config.clone(), weights, (&options, part))?);
        }
        let kv_format = decoders[0].kv_format();
        let weights_bytes = decoders.iter().map(CausalLm::weights_bytes).sum();
        let group = Arc::clone(&members[0]);
        let places = decoders.iter().map(Decoder::kv_place).collect();
        let start = |(decoder, member)| Rank::start(decoder, member, parallel.threads.get());
        let ranks =
            decoders.into_iter().zip(members).map(start).collect::<Result<Vec<_>, ModelError>>()?;
        Ok(Self { config, shape, kv_format, weights_bytes, ranks, places, group })
    }

    fn run(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
        hidden: bool,
    ) -> Result<(Tensor, Option<Tensor>), ModelError> {
        let parts = kv.parts();
        let fits = |(part, place): (&KvPart, &KvPlace)| part.fits(&self.config, place.kv_heads);
        if parts.len() != self.ranks.len() || !parts.iter().zip(&self.places).all(fits) {
            return Err(BatchError::KvCacheShape.into());
        }
        let batch = Arc::new(batch.clone());
        for (rank, part) in self.ranks.iter().zip(parts.drain(..)) {
            rank.begin(rank::Job { batch: Arc::clone(&batch), part, hidden });
        }
        // Ranks must be the last to hold adapters: who waits for one counts on it being let go.
        drop(batch);
        let mut answers = Vec::with_capacity(self.ranks.len());
        for rank in &mut self.ranks {
            let (part, answer) = rank.end();
            parts.push(part);
            answers.push(answer);
        }
        if answers.iter().all(Result::is_ok) {
            let first = answers.swap_remove(0)?;
            return Ok(first.expect("rank 0 has the result"));
        }
        // Nobody is inside an exchange any more.
        self.group.reset()?;
        let errors = answers.into_iter().filter_map(Result::err);
        // What went wrong says more than that somebody else's exchange was given up.
        let aborted = |error: &ModelError| {
            matches!(error, ModelError::Kernel(kernels::KernelError::Aborted { .. }))
        };
        Err(errors.min_by_key(aborted).expect("one is an error"))
    }
}

impl CausalLm for DividedModel {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn kv_format(&self) -> KvFormat {
        self.kv_format
    }

    fn device(&self) -> &Device {
        &self.places[0].device
    }

    fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    fn adapter_shape(&self) -> ModelShape {
        self.shape.clone()
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, ModelError> {
        check_format(&self.config, (self.kv_format, shape.format), self.device())?;
        KvCache::divided(&self.config, shape, &self.places)
    }

    fn kv_bytes(&self, shape: KvShape) -> Option<u64> {
        KvCache::bytes_divided(&self.config, shape, self.places.iter().map(|place| place.kv_heads))
    }

    fn forward(&mut self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<Tensor, ModelError> {
        Ok(self.run(batch, kv, false)?.0)
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let (logits, hidden) = self.run(batch, kv, true)?;
        Ok((logits, hidden.expect("hidden states were asked for")))
    }
}

/// Ranks on devices need what a build or a machine may lack, and the CPU does not.
fn not_here(config: &ModelConfig, error: kernels::KernelError) -> ModelError {
    ModelError::Device { architecture: config.architecture, reason: error.to_string() }
}

/// A device per rank.
fn devices(device: &Device, ranks: usize) -> Result<Vec<Device>, ModelError> {
    match device {
        Device::Cpu => Ok(vec![Device::Cpu; ranks]),
        _ => Ok((0..ranks).map(kernels::cuda_device_at).collect::<Result<_, _>>()?),
    }
}
