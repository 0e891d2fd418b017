//! Keys and values of all layers in blocks, allocated once.
//!
//! It never decides which block belongs to whom: block tables come with each batch.

use candle_core::Device;
use kernels::{KvBlocks, KvFormat, KvGeometry};

use crate::{ModelConfig, ModelError};

/// Sizes of a cache that a model does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks per layer.
    pub blocks: usize,
    /// Positions per block.
    pub block_tokens: usize,
    /// How the numbers are kept.
    pub format: KvFormat,
}

impl KvShape {
    fn geometry(self, config: &ModelConfig) -> KvGeometry {
        KvGeometry {
            blocks: self.blocks,
            block_tokens: self.block_tokens,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            format: self.format,
        }
    }
}

/// The paged cache of one model.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<KvBlocks>,
    geometry: KvGeometry,
}

impl KvCache {
    /// Allocates the blocks of each layer of the model.
    ///
    /// # Errors
    /// A size of zero, one that overflows, or a device this build can't use.
    pub fn new(config: &ModelConfig, shape: KvShape, device: &Device) -> Result<Self, ModelError> {
        let geometry = shape.geometry(config);
        let layers = (0..config.layers)
            .map(|_| KvBlocks::new(geometry, device))
            .collect::<Result<_, kernels::KernelError>>()?;
        Ok(Self { layers, geometry })
    }

    /// Blocks per layer.
    #[must_use]
    pub fn kv_blocks(&self) -> usize {
        self.geometry.blocks
    }

    /// Positions per block.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.geometry.block_tokens
    }

    /// Bytes that `new` allocates for these sizes; `None` if that overflows.
    #[must_use]
    pub fn bytes(config: &ModelConfig, shape: KvShape) -> Option<u64> {
        shape.geometry(config).bytes()?.checked_mul(config.layers as u64)
    }

    pub(crate) fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    /// Whether the cache was made for this model.
    pub(crate) fn fits(&self, config: &ModelConfig) -> bool {
        self.layers.len() == config.layers
            && self.geometry.kv_heads == config.kv_heads
            && self.geometry.head_dim == config.head_dim
    }

    /// Blocks of one layer.
    pub(crate) fn layer(&mut self, index: usize) -> &mut KvBlocks {
        &mut self.layers[index]
    }
}
