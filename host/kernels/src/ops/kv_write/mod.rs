//! Paged keys and values: the blocks of one layer, which rows of a step go where, and the write.
//!
//! Keys lie as `[block][head][dim][position]` so that the scores of sixteen positions are sixteen
//! lanes, values as `[block][head][position][dim]` so that sixteen outputs are.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod plan;

use candle_core::{Device, Tensor};

use crate::KernelError;
use crate::aligned::{Aligned, LANES, Plain};
use crate::elements::{Element, F16};
use crate::pool::{Parts, for_tasks};
use crate::tensor::{Place, exactly, host_floats, place};

pub use plan::{PagedPlan, PagedSpan};

const OP: &str = "kv_write";

/// Numbers that one thread writes sooner than it has woken another.
const WRITE_ALONE_MAX: usize = 1 << 11;

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
    /// How the numbers are kept.
    pub format: KvFormat,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvFormat {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to half precision: half the memory to hold and to read. Magnitudes above 65504 become
    /// 65504.
    F16,
}

impl KvFormat {
    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
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
        let bytes = floats.checked_mul(self.format.bytes())?;
        (bytes <= isize::MAX as usize).then_some(bytes as u64)
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvBlocks {
    held: Held,
    geometry: KvGeometry,
}

/// Keys, `[block][head][head_dim][padded_tokens]`, and values, `[block][head][block_tokens][padded_dim]`.
#[derive(Debug)]
enum Held {
    F32(Aligned<f32>, Aligned<f32>),
    F16(Aligned<F16>, Aligned<F16>),
}

/// Keys and values as slices of their own type.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    geometry: KvGeometry,
}

impl<'a, T> Pages<'a, T> {
    /// Keys of one head in one block, `[head_dim][padded_tokens]`.
    #[inline(always)]
    pub(crate) fn keys_of(&self, block: usize, head: usize) -> &'a [T] {
        let len = self.geometry.key_len();
        let index = block * self.geometry.kv_heads + head;
        &self.keys[index * len..(index + 1) * len]
    }

    /// Values of one head in one block, `[block_tokens][padded_dim]`.
    #[inline(always)]
    pub(crate) fn values_of(&self, block: usize, head: usize) -> &'a [T] {
        let len = self.geometry.value_len();
        let index = block * self.geometry.kv_heads + head;
        &self.values[index * len..(index + 1) * len]
    }
}

/// What reads keys and values, whatever they are kept as.
pub(crate) trait ReadPages {
    /// Reads.
    fn read<T: Element>(self, pages: Pages<'_, T>);
}

impl KvBlocks {
    /// Allocates all blocks, zeroed.
    ///
    /// # Errors
    /// A size of zero, sizes whose product overflows, or a device this build can't use.
    pub fn new(geometry: KvGeometry, device: &Device) -> Result<Self, KernelError> {
        const OP: &str = "kv blocks";
        if place(OP, device)? == Place::Cuda {
            return crate::cuda::refuse(OP);
        }
        if geometry.bytes().is_none() {
            return Err(KernelError::Size { op: OP, what: "zero or too large" });
        }
        let held = match geometry.format {
            KvFormat::F32 => Held::F32(keys(&geometry), values(&geometry)),
            KvFormat::F16 => Held::F16(keys(&geometry), values(&geometry)),
        };
        Ok(Self { held, geometry })
    }

    /// Sizes of the blocks.
    #[must_use]
    pub fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    /// Hands keys and values to `reader`.
    #[inline(always)]
    pub(crate) fn read(&self, reader: impl ReadPages) {
        let geometry = self.geometry;
        match &self.held {
            Held::F32(keys, values) => {
                reader.read(Pages { keys: keys.as_slice(), values: values.as_slice(), geometry });
            }
            Held::F16(keys, values) => {
                reader.read(Pages { keys: keys.as_slice(), values: values.as_slice(), geometry });
            }
        }
    }

    fn write(&mut self, plan: &PagedPlan, k: &[f32], v: &[f32]) {
        let geometry = self.geometry;
        match &mut self.held {
            Held::F32(keys, values) => {
                write((keys.as_mut_slice(), values.as_mut_slice()), &geometry, plan, (k, v));
            }
            Held::F16(keys, values) => {
                write((keys.as_mut_slice(), values.as_mut_slice()), &geometry, plan, (k, v));
            }
        }
    }
}

fn keys<T: Plain>(geometry: &KvGeometry) -> Aligned<T> {
    Aligned::zeros(geometry.blocks * geometry.kv_heads * geometry.key_len())
}

fn values<T: Plain>(geometry: &KvGeometry) -> Aligned<T> {
    Aligned::zeros(geometry.blocks * geometry.kv_heads * geometry.value_len())
}

fn write<T: Element>(
    (keys, values): (&mut [T], &mut [T]),
    geometry: &KvGeometry,
    plan: &PagedPlan,
    (k, v): (&[f32], &[f32]),
) {
    let (dim, tokens) = (geometry.head_dim, geometry.padded_tokens());
    let width = geometry.kv_heads * dim;
    let slots = plan.slots();
    // One head of all rows is one task: what two heads write lies in different places.
    let (keys, values) = (Parts::of(keys), Parts::of(values));
    let head_task = |head: usize| {
        for (row, slot) in slots.iter().enumerate() {
            let (block, offset) = (slot / geometry.block_tokens, slot % geometry.block_tokens);
            let source = row * width + head * dim..row * width + (head + 1) * dim;
            let index = block * geometry.kv_heads + head;
            // SAFETY: `index` differs between heads, so these are this task's alone.
            let (keys, values) = unsafe {
                let start = index * geometry.value_len() + offset * geometry.padded_dim();
                (
                    keys.part(index * geometry.key_len()..(index + 1) * geometry.key_len()),
                    values.part(start..start + dim),
                )
            };
            for (lane, key) in keys.chunks_exact_mut(tokens).zip(&k[source.clone()]) {
                lane[offset] = T::narrow(*key);
            }
            for (value, v) in values.iter_mut().zip(&v[source]) {
                *value = T::narrow(*v);
            }
        }
    };
    if slots.len() * width <= WRITE_ALONE_MAX {
        (0..geometry.kv_heads).for_each(head_task);
    } else {
        for_tasks(geometry.kv_heads, head_task);
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
        return crate::cuda::refuse(OP);
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
        KvGeometry { blocks: 5, block_tokens: 3, kv_heads: 2, head_dim: 4, format: KvFormat::F32 };

    struct Check;

    impl ReadPages for Check {
        fn read<T: Element>(self, pages: Pages<'_, T>) {
            let widened = |of: &[T]| of.iter().map(|v| v.widen()).collect::<Vec<f32>>();
            // Row 1, head 1: floats 12..16, block 1 offset 0.
            let keys = widened(pages.keys_of(1, 1));
            assert_eq!([keys[0], keys[16], keys[32], keys[48]], [12.0, 13.0, 14.0, 15.0]);
            assert_eq!(widened(pages.values_of(1, 1))[..4], [-12.0, -13.0, -14.0, -15.0]);
            assert_eq!(widened(pages.values_of(4, 0))[32..36], [0.0, -1.0, -2.0, -3.0]);
        }
    }

    #[test]
    fn rows_land_in_their_slots() {
        for format in [KvFormat::F32, KvFormat::F16] {
            let geometry = KvGeometry { format, ..GEOMETRY };
            let mut blocks = KvBlocks::new(geometry, &Device::Cpu).unwrap();
            // Positions 2, 3, 4 of a sequence in blocks 4 and 1.
            let span = PagedSpan { row_start: 0, rows: 3, context_len: 5, block_table: vec![4, 1] };
            let plan = PagedPlan::new(vec![span], &geometry).unwrap();
            assert_eq!(plan.slots(), [14, 3, 4]);
            let k: Vec<f32> = (0..24).map(|v| v as f32).collect();
            let v: Vec<f32> = k.iter().map(|v| -v).collect();
            let k = from_host(k, (3, 8)).unwrap();
            let v = from_host(v, (3, 8)).unwrap();
            kv_write(&k, &v, &plan, &mut blocks).unwrap();
            blocks.read(Check);
        }
        assert_eq!(F16::narrow(1e9).widen(), 65504.0);
        assert!(F16::narrow(f32::NAN).widen().is_nan());
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
