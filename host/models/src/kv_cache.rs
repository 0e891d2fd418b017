//! Keys and values of all layers in blocks, allocated once.
//!
//! It never decides which block belongs to whom: block tables come with each batch.

use candle_core::Device;
use kernels::{KvBlocks, KvGeometry};

use crate::{ModelConfig, ModelError};

/// The paged cache of one model.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<KvBlocks>,
    geometry: KvGeometry,
}

impl KvCache {
    /// Allocates `kv_blocks` blocks of `block_tokens` positions for each layer of the model.
    ///
    /// # Errors
    /// A size of zero, one that overflows, or a device this build can't use.
    pub fn new(
        config: &ModelConfig,
        kv_blocks: usize,
        block_tokens: usize,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let geometry = KvGeometry {
            blocks: kv_blocks,
            block_tokens,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
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
    pub fn bytes(config: &ModelConfig, kv_blocks: usize, block_tokens: usize) -> Option<u64> {
        let geometry = KvGeometry {
            blocks: kv_blocks,
            block_tokens,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        geometry.bytes()?.checked_mul(config.layers as u64)
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
