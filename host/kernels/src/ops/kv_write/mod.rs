//! Paged keys and values: the blocks of one layer, which rows of a step go where, and the write.
//!
//! Keys lie as `[block][head][dim][position]` so that the scores of sixteen positions are sixteen
//! lanes, values as `[block][head][position][dim]` so that sixteen outputs are.

mod plan;

use candle_core::{Device, Tensor};

use crate::aligned::{Aligned, LANES};
use crate::tensor::{Place, exactly, host_floats, place};
use crate::{KernelError, cuda};

pub use plan::{PagedPlan, PagedSpan};

const OP: &str = "kv_write";

/// Sizes of a layer's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGeometry {
    /// Blocks.
    pub blocks: usize,
    /// Positions per block.
    pub block_tokens: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvGeometry {
    /// Positions of a block, padded to whole vectors.
    pub(crate) fn padded_tokens(&self) -> usize {
        self.block_tokens.next_multiple_of(LANES)
    }

    /// Width of a head, padded to whole vectors.
    pub(crate) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Floats of the keys of one head in one block.
    pub(crate) fn key_len(&self) -> usize {
        self.head_dim * self.padded_tokens()
    }

    /// Floats of the values of one head in one block.
    pub(crate) fn value_len(&self) -> usize {
        self.padded_dim() * self.block_tokens
    }

    /// Bytes of one layer; `None` if that overflows or a size is zero.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let within = |size: usize| (1..=u32::MAX as usize).contains(&size);
        let sizes = [self.blocks, self.block_tokens, self.kv_heads, self.head_dim];
        if !sizes.into_iter().all(within) {
            return None;
        }
        let tokens = self.block_tokens.checked_next_multiple_of(LANES)?;
        let dim = self.head_dim.checked_next_multiple_of(LANES)?;
        let keys = self.head_dim.checked_mul(tokens)?;
        let values = dim.checked_mul(self.block_tokens)?;
        let heads = self.blocks.checked_mul(self.kv_heads)?;
        let floats = keys.checked_add(values)?.checked_mul(heads)?;
        let bytes = floats.checked_mul(size_of::<f32>())?;
        (bytes <= isize::MAX as usize).then_some(bytes as u64)
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvBlocks {
    keys: Aligned<f32>,
    values: Aligned<f32>,
    geometry: KvGeometry,
}

impl KvBlocks {
    /// Allocates all blocks, zeroed.
    ///
    /// # Errors
    /// A size of zero, sizes whose product overflows, or a device this build can't use.
    pub fn new(geometry: KvGeometry, device: &Device) -> Result<Self, KernelError> {
        const OP: &str = "kv blocks";
        if place(OP, device)? == Place::Cuda {
            return cuda::refuse(OP);
        }
        if geometry.bytes().is_none() {
            return Err(KernelError::Size { op: OP, what: "zero or too large" });
        }
        let heads = geometry.blocks * geometry.kv_heads;
        Ok(Self {
            keys: Aligned::zeros(heads * geometry.key_len()),
            values: Aligned::zeros(heads * geometry.value_len()),
            geometry,
        })
    }

    /// Sizes of the blocks.
    #[must_use]
    pub fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    /// Keys of one head in one block, `[head_dim][padded_tokens]`.
    pub(crate) fn keys_of(&self, block: usize, head: usize) -> &[f32] {
        let len = self.geometry.key_len();
        let index = block * self.geometry.kv_heads + head;
        &self.keys.as_slice()[index * len..(index + 1) * len]
    }

    /// Values of one head in one block, `[block_tokens][padded_dim]`.
    pub(crate) fn values_of(&self, block: usize, head: usize) -> &[f32] {
        let len = self.geometry.value_len();
        let index = block * self.geometry.kv_heads + head;
        &self.values.as_slice()[index * len..(index + 1) * len]
    }

    fn write(&mut self, plan: &PagedPlan, k: &[f32], v: &[f32]) {
        let geometry = self.geometry;
        let (dim, tokens) = (geometry.head_dim, geometry.padded_tokens());
        let width = geometry.kv_heads * dim;
        let keys = self.keys.as_mut_slice();
        let values = self.values.as_mut_slice();
        for (row, slot) in plan.slots().iter().enumerate() {
            let (block, offset) = (slot / geometry.block_tokens, slot % geometry.block_tokens);
            for head in 0..geometry.kv_heads {
                let source = row * width + head * dim..row * width + (head + 1) * dim;
                let index = block * geometry.kv_heads + head;
                let target = &mut keys[index * geometry.key_len()..][..geometry.key_len()];
                for (lane, key) in target.chunks_exact_mut(tokens).zip(&k[source.clone()]) {
                    lane[offset] = *key;
                }
                let start = index * geometry.value_len() + offset * geometry.padded_dim();
                values[start..start + dim].copy_from_slice(&v[source]);
            }
        }
    }
}

/// Writes the keys and values of all rows of a step, `[rows, kv_heads * head_dim]` each, to the
/// slots of `plan`.
///
/// # Errors
/// Operands of other shapes or types, a plan made for other blocks, or a device this build can't
/// use.
pub fn kv_write(
    k: &Tensor,
    v: &Tensor,
    plan: &PagedPlan,
    blocks: &mut KvBlocks,
) -> Result<(), KernelError> {
    plan.check_geometry(OP, &blocks.geometry)?;
    let shape = [plan.slots().len(), blocks.geometry.kv_heads * blocks.geometry.head_dim];
    exactly(OP, "k", k, &shape)?;
    exactly(OP, "v", v, &shape)?;
    if place(OP, k.device())? == Place::Cuda {
        return cuda::refuse(OP);
    }
    let (k, v) = (host_floats(OP, "k", k)?, host_floats(OP, "v", v)?);
    blocks.write(plan, k.as_slice()?, v.as_slice()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_host;

    const GEOMETRY: KvGeometry =
        KvGeometry { blocks: 5, block_tokens: 3, kv_heads: 2, head_dim: 4 };

    #[test]
    fn rows_land_in_their_slots() {
        let mut blocks = KvBlocks::new(GEOMETRY, &Device::Cpu).unwrap();
        // Positions 2, 3, 4 of a sequence in blocks 4 and 1.
        let span = PagedSpan { row_start: 0, rows: 3, context_len: 5, block_table: vec![4, 1] };
        let plan = PagedPlan::new(vec![span], &GEOMETRY).unwrap();
        assert_eq!(plan.slots(), [14, 3, 4]);
        let k: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let v: Vec<f32> = k.iter().map(|v| -v).collect();
        let k = from_host(k, (3, 8)).unwrap();
        let v = from_host(v, (3, 8)).unwrap();
        kv_write(&k, &v, &plan, &mut blocks).unwrap();
        // Row 1, head 1: floats 12..16, block 1 offset 0.
        let keys = blocks.keys_of(1, 1);
        assert_eq!([keys[0], keys[16], keys[32], keys[48]], [12.0, 13.0, 14.0, 15.0]);
        assert_eq!(blocks.values_of(1, 1)[..4], [-12.0, -13.0, -14.0, -15.0]);
        assert_eq!(blocks.values_of(4, 0)[32..36], [0.0, -1.0, -2.0, -3.0]);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        for (zero, device) in [(0, Device::Cpu), (usize::MAX / 2, Device::Cpu)] {
            let geometry = KvGeometry { blocks: zero, ..GEOMETRY };
            assert!(matches!(KvBlocks::new(geometry, &device), Err(KernelError::Size { .. })));
        }
        let plan = PagedPlan::new(vec![], &GEOMETRY).unwrap();
        let other = KvGeometry { block_tokens: 16, ..GEOMETRY };
        let mut blocks = KvBlocks::new(other, &Device::Cpu).unwrap();
        let none = from_host(vec![], (0, 8)).unwrap();
        assert!(kv_write(&none, &none, &plan, &mut blocks).is_err());
    }
}
