//! Paged keys and values: the blocks of one layer, which rows of a step go where, and the write.
//!
//! Keys lie as `[block][head][dim][position]` so that the scores of sixteen positions are sixteen
//! lanes, values as `[block][head][position][dim]` so that sixteen outputs are.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod pages;
mod plan;

use candle_core::Tensor;

use crate::aligned::LANES;
use crate::elements::Bf16;
use crate::tensor::{Place, exactly, host_floats, place};
use crate::{KernelError, on_device};

use pages::Held;
pub use pages::KvBlocks;
pub(crate) use pages::{Kept, Pages, ReadPages};
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
    /// Bytes between -127 and 127 and a scale, in two bytes, for each position and head of the keys, and
    /// one of the values: half the memory of [`KvFormat::F16`], and two bytes.
    Int8,
}

impl KvFormat {
    /// Bytes of a number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of the scales of one position and head, keys' and values' together.
    fn scale_bytes(self) -> usize {
        if self == Self::Int8 { 2 * size_of::<Bf16>() } else { 0 }
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
        let numbers = keys.checked_add(values)?.checked_mul(self.format.bytes())?;
        let scales = tokens.checked_mul(self.format.scale_bytes())?;
        let bytes = numbers.checked_add(scales)?.checked_mul(heads)?;
        (bytes <= isize::MAX as usize).then_some(bytes as u64)
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
    let geometry = blocks.geometry();
    plan.check_geometry(OP, &geometry)?;
    let shape = [plan.slots().len(), geometry.kv_heads * geometry.head_dim];
    exactly(OP, "k", k, &shape)?;
    exactly(OP, "v", v, &shape)?;
    let device = k.device().location();
    match (place(OP, k.device())?, &mut blocks.held) {
        (Place::Cuda, Held::Device(blocks)) => return on_device::kv_write((k, v), plan, blocks),
        (Place::Cuda, _) | (_, Held::Device(_)) => {
            return Err(KernelError::Device { op: OP, device });
        }
        _ => {}
    }
    let (k, v) = (host_floats(OP, "k", k)?, host_floats(OP, "v", v)?);
    blocks.write(plan, k.as_slice()?, v.as_slice()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::elements::{Element, F16};
    use crate::tensor::from_host;

    const GEOMETRY: KvGeometry =
        KvGeometry { blocks: 5, block_tokens: 3, kv_heads: 2, head_dim: 4, format: KvFormat::F32 };

    struct Check;

    impl ReadPages for Check {
        fn read<T: Kept>(self, pages: Pages<'_, T>) {
            let check = |of: &[T], scale: Option<f32>, expected: [f32; 4], step: usize| {
                for (i, expected) in expected.into_iter().enumerate() {
                    let found = of[i * step].widen() * scale.unwrap_or(1.0);
                    let bound = if T::SCALED { 0.5 / 126.0 * 15.0 } else { 0.0 };
                    assert!((found - expected).abs() <= bound, "{found} is not {expected}");
                }
            };
            let scale = |scales: &[Bf16], offset: usize| scales[offset].widen();
            let scales = |keys: bool, block, head, offset| {
                T::SCALED.then(|| match keys {
                    true => scale(pages.key_scales_of(block, head), offset),
                    false => scale(pages.value_scales_of(block, head), offset),
                })
            };
            // Row 1, head 1: floats 12..16, block 1 offset 0.
            let expected = [12.0, 13.0, 14.0, 15.0];
            check(pages.keys_of(1, 1), scales(true, 1, 1, 0), expected, 16);
            check(pages.values_of(1, 1), scales(false, 1, 1, 0), expected.map(|v: f32| -v), 1);
            let values = &pages.values_of(4, 0)[32..];
            check(values, scales(false, 4, 0, 2), [0.0, -1.0, -2.0, -3.0], 1);
        }
    }

    #[test]
    fn rows_land_in_their_slots() {
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::Int8] {
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
    fn bytes_are_half_of_f16_and_the_scales() {
        let bytes = |format, head_dim, block_tokens| {
            let geometry = KvGeometry { block_tokens, head_dim, format, ..GEOMETRY };
            geometry.bytes().unwrap()
        };
        for (head_dim, block_tokens) in [(64, 16), (128, 16), (128, 32)] {
            let [f32, f16, int8] = [KvFormat::F32, KvFormat::F16, KvFormat::Int8]
                .map(|format| bytes(format, head_dim, block_tokens));
            // Five blocks, two heads, a scale for keys and one for values.
            let scales = 5 * 2 * block_tokens as u64 * 2 * 2;
            assert_eq!((f32, int8), (2 * f16, f16 / 2 + scales));
            assert!(int8 as f64 <= 0.516 * f16 as f64);
        }
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
