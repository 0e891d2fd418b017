//! The blocks of one layer as they lie in memory, in every format, and the write into them.
//!
//! A byte is a number divided by its position's and head's scale and rounded; a scale is the largest
//! magnitude over 127, rounded up to a bf16, so that no number is cut. It never decides which block
//! belongs to whom.

use candle_core::{DType, Device};

use super::{KvFormat, KvGeometry, PagedPlan};
use crate::aligned::{Aligned, LANES};
use crate::elements::{Bf16, Element, F16, I8};
use crate::pool::{Parts, for_tasks};
use crate::tensor::{Place, place};
use crate::{KernelError, on_device};

/// Numbers that one thread writes sooner than it has woken another.
const WRITE_ALONE_MAX: usize = 1 << 11;

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvBlocks {
    pub(super) held: Held,
    geometry: KvGeometry,
}

#[derive(Debug)]
pub(super) enum Held {
    F32(Memory<f32>),
    F16(Memory<F16>),
    Int8(Memory<I8>),
    Device(on_device::Blocks),
}

/// Keys, `[block][head][head_dim][padded_tokens]`, values, `[block][head][block_tokens][padded_dim]`,
/// and where numbers have scales those of keys and of values, `[block][head][padded_tokens]`.
#[derive(Debug)]
pub(super) struct Memory<T> {
    keys: Aligned<T>,
    values: Aligned<T>,
    key_scales: Aligned<Bf16>,
    value_scales: Aligned<Bf16>,
}

impl<T: Kept> Memory<T> {
    fn zeros(geometry: &KvGeometry) -> Self {
        let heads = geometry.blocks * geometry.kv_heads;
        let scales = if T::SCALED { heads * geometry.padded_tokens() } else { 0 };
        Self {
            keys: Aligned::zeros(heads * geometry.key_len()),
            values: Aligned::zeros(heads * geometry.value_len()),
            key_scales: Aligned::zeros(scales),
            value_scales: Aligned::zeros(scales),
        }
    }

    fn pages(&self, geometry: KvGeometry) -> Pages<'_, T> {
        Pages {
            keys: self.keys.as_slice(),
            values: self.values.as_slice(),
            key_scales: self.key_scales.as_slice(),
            value_scales: self.value_scales.as_slice(),
            geometry,
        }
    }
}

/// A number as keys and values are kept in.
pub(crate) trait Kept: Element {
    /// Whether numbers are multiples of a scale.
    const SCALED: bool;
}

impl Kept for f32 {
    const SCALED: bool = false;
}

impl Kept for F16 {
    const SCALED: bool = false;
}

impl Kept for I8 {
    const SCALED: bool = true;
}

/// Keys and values as slices of their own type.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'a, T> {
    keys: &'a [T],
    values: &'a [T],
    key_scales: &'a [Bf16],
    value_scales: &'a [Bf16],
    geometry: KvGeometry,
}

impl<'a, T> Pages<'a, T> {
    #[inline(always)]
    fn part<U>(&self, of: &'a [U], block: usize, head: usize, len: usize) -> &'a [U] {
        let index = block * self.geometry.kv_heads + head;
        &of[index * len..(index + 1) * len]
    }

    /// Keys of one head in one block, `[head_dim][padded_tokens]`.
    #[inline(always)]
    pub(crate) fn keys_of(&self, block: usize, head: usize) -> &'a [T] {
        self.part(self.keys, block, head, self.geometry.key_len())
    }

    /// Values of one head in one block, `[block_tokens][padded_dim]`.
    #[inline(always)]
    pub(crate) fn values_of(&self, block: usize, head: usize) -> &'a [T] {
        self.part(self.values, block, head, self.geometry.value_len())
    }

    /// Scales of the keys of one head in one block, `[padded_tokens]`, of numbers that have some.
    #[inline(always)]
    pub(crate) fn key_scales_of(&self, block: usize, head: usize) -> &'a [Bf16] {
        self.part(self.key_scales, block, head, self.geometry.padded_tokens())
    }

    /// Scales of the values of one head in one block, `[padded_tokens]`, of numbers that have some.
    #[inline(always)]
    pub(crate) fn value_scales_of(&self, block: usize, head: usize) -> &'a [Bf16] {
        self.part(self.value_scales, block, head, self.geometry.padded_tokens())
    }
}

/// What reads keys and values, whatever they are kept as.
pub(crate) trait ReadPages {
    /// Reads.
    fn read<T: Kept>(self, pages: Pages<'_, T>);
}

impl KvBlocks {
    /// Allocates all blocks, zeroed.
    ///
    /// # Errors
    /// A size of zero, sizes whose product overflows, or a device this build can't use.
    pub fn new(geometry: KvGeometry, device: &Device) -> Result<Self, KernelError> {
        Self::typed(geometry, None, device)
    }

    /// As [`KvBlocks::new`]. A device keeps keys and values in the type that they are computed in: `dtype`,
    /// where it is not what the format is named after.
    ///
    /// # Errors
    /// As of [`KvBlocks::new`].
    pub fn typed(
        geometry: KvGeometry,
        dtype: Option<DType>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        const OP: &str = "kv blocks";
        if place(OP, device)? == Place::Cuda {
            let held = Held::Device(on_device::blocks(geometry, dtype, device)?);
            return Ok(Self { held, geometry });
        }
        if geometry.bytes().is_none() {
            return Err(KernelError::Size { op: OP, what: "zero or too large" });
        }
        let held = match geometry.format {
            KvFormat::F32 => Held::F32(Memory::zeros(&geometry)),
            KvFormat::F16 => Held::F16(Memory::zeros(&geometry)),
            KvFormat::Int8 => Held::Int8(Memory::zeros(&geometry)),
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
        match &self.held {
            Held::F32(memory) => reader.read(memory.pages(self.geometry)),
            Held::F16(memory) => reader.read(memory.pages(self.geometry)),
            Held::Int8(memory) => reader.read(memory.pages(self.geometry)),
            Held::Device(_) => unreachable!("the op was sent to the device"),
        }
    }

    /// The blocks on a device, if that is where they are.
    pub(crate) fn on_device(&self) -> Option<&on_device::Blocks> {
        match &self.held {
            Held::Device(blocks) => Some(blocks),
            _ => None,
        }
    }

    pub(super) fn write(&mut self, plan: &PagedPlan, k: &[f32], v: &[f32]) {
        match &mut self.held {
            Held::F32(memory) => write(memory, &self.geometry, plan, (k, v)),
            Held::F16(memory) => write(memory, &self.geometry, plan, (k, v)),
            Held::Int8(memory) => write(memory, &self.geometry, plan, (k, v)),
            Held::Device(_) => unreachable!("the op was sent to the device"),
        }
    }
}

fn write<T: Kept>(
    memory: &mut Memory<T>,
    geometry: &KvGeometry,
    plan: &PagedPlan,
    (k, v): (&[f32], &[f32]),
) {
    let (dim, tokens) = (geometry.head_dim, geometry.padded_tokens());
    let width = geometry.kv_heads * dim;
    let slots = plan.slots();
    // One head of all rows is one task: what two heads write lies in different places.
    let (keys, values) =
        (Parts::of(memory.keys.as_mut_slice()), Parts::of(memory.values.as_mut_slice()));
    let scales = [&mut memory.key_scales, &mut memory.value_scales]
        .map(|scales| Parts::of(scales.as_mut_slice()));
    let head_task = |head: usize| {
        let (scaled, narrowed) = (&mut vec![0.0; dim], &mut vec![T::default(); dim]);
        for (row, slot) in slots.iter().enumerate() {
            let (block, offset) = (slot / geometry.block_tokens, slot % geometry.block_tokens);
            let source = row * width + head * dim..row * width + (head + 1) * dim;
            let index = block * geometry.kv_heads + head;
            let (k, v) = (&k[source.clone()], &v[source]);
            // SAFETY: `index` differs between heads, so these are this task's alone.
            let (keys, values) = unsafe {
                let start = index * geometry.value_len() + offset * geometry.padded_dim();
                (
                    keys.part(index * geometry.key_len()..(index + 1) * geometry.key_len()),
                    values.part(start..start + dim),
                )
            };
            let mut inverses = [1.0; 2];
            if T::SCALED {
                let at = index * tokens + offset;
                for ((inverse, scales), numbers) in inverses.iter_mut().zip(&scales).zip([k, v]) {
                    let (scale, found) = scale_of(numbers);
                    *inverse = found;
                    // SAFETY: as above.
                    let place = unsafe { scales.part(at..at + 1) };
                    place[0] = scale;
                }
            }
            narrow(k, inverses[0], (scaled, narrowed));
            for (lane, key) in keys.chunks_exact_mut(tokens).zip(&*narrowed) {
                lane[offset] = *key;
            }
            narrow(v, inverses[1], (scaled, narrowed));
            values.copy_from_slice(narrowed);
        }
    };
    if slots.len() * width <= WRITE_ALONE_MAX {
        (0..geometry.kv_heads).for_each(head_task);
    } else {
        for_tasks(geometry.kv_heads, head_task);
    }
}

/// Numbers times `inverse` as they are kept, by way of `scaled`.
fn narrow<T: Kept>(numbers: &[f32], inverse: f32, (scaled, narrowed): (&mut [f32], &mut [T])) {
    if !T::SCALED {
        return T::narrow_all(numbers, narrowed);
    }
    for (scaled, number) in scaled.iter_mut().zip(numbers) {
        *scaled = number * inverse;
    }
    T::narrow_all(scaled, narrowed);
}

/// The scale of some numbers, and what they are to be multiplied by. Numbers that are not finite make a
/// scale that is not either, so that they show in what is read.
fn scale_of(numbers: &[f32]) -> (Bf16, f32) {
    let mut largest = [0_u32; LANES];
    for numbers in numbers.chunks(LANES) {
        for (largest, number) in largest.iter_mut().zip(numbers) {
            // Bits without the sign are ordered as magnitudes are, with what is not finite above.
            *largest = (*largest).max(number.abs().to_bits());
        }
    }
    let largest = f32::from_bits(largest.iter().copied().fold(0, u32::max));
    if !largest.is_finite() {
        return (Bf16::narrow(f32::NAN), 0.0);
    }
    let exact = largest / 127.0;
    let up = exact.to_bits().saturating_add(0xffff) & 0xffff_0000;
    let scale = f32::from_bits(up);
    // The inverse of a scale below this would be infinite; numbers so small are zero.
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    (Bf16((up >> 16) as u16), inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_their_numbers_and_little_more() {
        let check = |numbers: &[f32], expected: f32| {
            let (scale, inverse) = scale_of(numbers);
            let scale = scale.widen();
            assert!(scale >= expected && scale <= expected * (1.0 + 1.0 / 128.0), "{scale}");
            for number in numbers {
                let kept = I8::narrow(number * inverse);
                let error = (kept.widen() * scale - number).abs();
                assert!(error <= 0.5001 * scale, "{number} became {kept:?} times {scale}");
            }
        };
        check(&[127.0, -3.0, 0.4], 1.0);
        check(&[-1e30, 1e29], 1e30 / 127.0);
        check(&[1e-30; 20], 1e-30 / 127.0);
        check(&[0.1, -0.1, 0.0999], 0.1 / 127.0);
        assert_eq!(scale_of(&[0.0; 3]).0.widen(), 0.0);
        assert_eq!(scale_of(&[1e-38]).1, 0.0, "a number so small is zero");
        assert!(scale_of(&[f32::MAX]).0.widen().is_finite());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(scale_of(&[0.0, 1.0, bad]).0.widen().is_nan());
        }
    }
}
