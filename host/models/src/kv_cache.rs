//! Keys and values of all layers in blocks, allocated once.
//!
//! It never decides which block belongs to whom: block tables come with each batch.

use candle_core::{DType, Device};
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
    fn geometry(self, config: &ModelConfig, kv_heads: usize) -> KvGeometry {
        KvGeometry {
            blocks: self.blocks,
            block_tokens: self.block_tokens,
            kv_heads,
            head_dim: config.head_dim,
            format: self.format,
        }
    }
}

/// The paged cache of one model: a part for each of its ranks.
#[derive(Debug)]
pub struct KvCache {
    parts: Vec<KvPart>,
    shape: KvShape,
}

/// Where a rank keeps what.
#[derive(Clone, Debug)]
pub(crate) struct KvPlace {
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    pub(crate) device: Device,
    /// What keys and values are computed in, on a device.
    pub(crate) dtype: Option<DType>,
}

/// What one rank keeps: its heads, in the blocks that all ranks number the same way.
#[derive(Debug)]
pub(crate) struct KvPart {
    layers: Vec<KvBlocks>,
    geometry: KvGeometry,
}

impl KvPart {
    pub(crate) fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    /// Whether it was made for `kv_heads` heads of this model.
    pub(crate) fn fits(&self, config: &ModelConfig, kv_heads: usize) -> bool {
        self.layers.len() == config.layers
            && self.geometry.kv_heads == kv_heads
            && self.geometry.head_dim == config.head_dim
    }

    /// Blocks of one layer.
    pub(crate) fn layer(&mut self, index: usize) -> &mut KvBlocks {
        &mut self.layers[index]
    }
}

impl KvCache {
    /// Allocates the blocks of each layer of the model, for a model that is not divided; see
    /// [`crate::CausalLm::kv_cache`] for any.
    ///
    /// # Errors
    /// A size of zero, one that overflows, or a device this build can't use.
    pub fn new(config: &ModelConfig, shape: KvShape, device: &Device) -> Result<Self, ModelError> {
        let place = KvPlace { kv_heads: config.kv_heads, device: device.clone(), dtype: None };
        Self::divided(config, shape, &[place])
    }

    /// As [`KvCache::new`], with a part for each place.
    pub(crate) fn divided(
        config: &ModelConfig,
        shape: KvShape,
        places: &[KvPlace],
    ) -> Result<Self, ModelError> {
        let part = |place: &KvPlace| {
            let geometry = shape.geometry(config, place.kv_heads);
            let layers = (0..config.layers)
                .map(|_| KvBlocks::typed(geometry, place.dtype, &place.device))
                .collect::<Result<_, kernels::KernelError>>()?;
            Ok(KvPart { layers, geometry })
        };
        Ok(Self { parts: places.iter().map(part).collect::<Result<_, ModelError>>()?, shape })
    }

    /// Blocks per layer.
    #[must_use]
    pub fn kv_blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Positions per block.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.shape.block_tokens
    }

    /// Bytes that `new` allocates for these sizes; `None` if that overflows.
    #[must_use]
    pub fn bytes(config: &ModelConfig, shape: KvShape) -> Option<u64> {
        Self::bytes_divided(config, shape, [config.kv_heads])
    }

    /// The same of parts with these numbers of heads.
    pub(crate) fn bytes_divided(
        config: &ModelConfig,
        shape: KvShape,
        kv_heads: impl IntoIterator<Item = usize>,
    ) -> Option<u64> {
        kv_heads.into_iter().try_fold(0_u64, |sum, kv_heads| {
            let layer = shape.geometry(config, kv_heads).bytes()?;
            sum.checked_add(layer.checked_mul(config.layers as u64)?)
        })
    }

    /// The parts of all ranks.
    pub(crate) fn parts(&mut self) -> &mut Vec<KvPart> {
        &mut self.parts
    }
}
