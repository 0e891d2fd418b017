//! Numbers that stay in memory at the width they came in, and are widened, exactly, where they are
//! used.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::WeightBytes;
use crate::WeightFormat;
use crate::aligned::{Aligned, Plain};
#[cfg(target_arch = "x86_64")]
use crate::simd::Vector;

/// A number as it is kept.
pub(crate) trait Element: Plain + Default {
    /// The number, widened.
    fn widen(self) -> f32;

    /// The nearest number; what is too large becomes the largest.
    fn narrow(value: f32) -> Self;

    /// [`Element::narrow`] of each.
    ///
    /// # Panics
    /// If there are more or fewer targets.
    fn narrow_all(values: &[f32], targets: &mut [Self]) {
        assert_eq!(values.len(), targets.len());
        for (target, value) in targets.iter_mut().zip(values) {
            *target = Self::narrow(*value);
        }
    }

    /// Sixteen numbers, widened.
    ///
    /// # Safety
    /// As [`Vector`], and `source` is readable for sixteen numbers.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load<V: Vector>(source: *const Self) -> V;
}

impl Element for f32 {
    fn widen(self) -> f32 {
        self
    }

    fn narrow(value: f32) -> Self {
        value
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<V: Vector>(source: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(source) }
    }
}

/// The bits of an f16.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

/// The bits of a bf16.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Plain for F16 {}
impl Plain for Bf16 {}

/// A small integer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct I8(pub(crate) i8);

impl Plain for I8 {}

impl Element for I8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self.0)
    }

    /// Ties to even, within -127 and 127.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        /// Adding it rounds to an integer, which then stands in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        Self((value.clamp(-127.0, 127.0) + ROUND).to_bits() as i8)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<V: Vector>(source: *const Self) -> V {
        // SAFETY: the caller's promise; `I8` is transparent.
        unsafe { V::load_i8(source.cast()) }
    }
}

impl Element for F16 {
    fn widen(self) -> f32 {
        f16::from_bits(self.0).to_f32()
    }

    fn narrow(value: f32) -> Self {
        let most = f16::MAX.to_f32();
        Self(f16::from_f32(value.clamp(-most, most)).to_bits())
    }

    fn narrow_all(values: &[f32], targets: &mut [Self]) {
        /// Numbers that are narrowed by one look at what the CPU can do.
        const TOGETHER: usize = 64;
        assert_eq!(values.len(), targets.len());
        let most = f16::MAX.to_f32();
        for (values, targets) in values.chunks(TOGETHER).zip(targets.chunks_mut(TOGETHER)) {
            let (mut within, mut halves) = ([0.0; TOGETHER], [f16::ZERO; TOGETHER]);
            let count = values.len();
            for (within, value) in within.iter_mut().zip(values) {
                *within = value.clamp(-most, most);
            }
            halves[..count].convert_from_f32_slice(&within[..count]);
            for (target, half) in targets.iter_mut().zip(&halves) {
                *target = Self(half.to_bits());
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<V: Vector>(source: *const Self) -> V {
        // SAFETY: the caller's promise; `F16` is transparent.
        unsafe { V::load_f16(source.cast()) }
    }
}

impl Element for Bf16 {
    fn widen(self) -> f32 {
        bf16::from_bits(self.0).to_f32()
    }

    fn narrow(value: f32) -> Self {
        let most = bf16::MAX.to_f32();
        Self(bf16::from_f32(value.clamp(-most, most)).to_bits())
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load<V: Vector>(source: *const Self) -> V {
        // SAFETY: the caller's promise; `Bf16` is transparent.
        unsafe { V::load_bf16(source.cast()) }
    }
}

/// Numbers of one width.
#[derive(Debug)]
pub(crate) enum Elements {
    F32(Aligned<f32>),
    F16(Aligned<F16>),
    Bf16(Aligned<Bf16>),
}

/// Runs `$body` with `$elements` as a slice of its own type.
macro_rules! with_elements {
    ($held:expr, $elements:ident => $body:expr) => {
        match $held {
            $crate::elements::Elements::F32(held) => {
                let $elements = held.as_slice();
                $body
            }
            $crate::elements::Elements::F16(held) => {
                let $elements = held.as_slice();
                $body
            }
            $crate::elements::Elements::Bf16(held) => {
                let $elements = held.as_slice();
                $body
            }
        }
    };
}
pub(crate) use with_elements;

impl Elements {
    /// The elements of `weight`: every `rows` rows fill `len` elements, which begin where those of the
    /// rows before end; `place` says where, by row and column of the group. What nothing is put at is
    /// zero. Weights in blocks become floats.
    pub(crate) fn arranged(
        weight: &WeightBytes<'_>,
        (rows, len): (usize, usize),
        place: impl Fn(usize, usize) -> usize + Sync,
    ) -> Self {
        let halves = |row: usize| weight.row(row).as_chunks::<2>().0.iter();
        match weight.format() {
            WeightFormat::F16 => Self::F16(arrange(weight, (rows, len), |row, group, target| {
                for (column, bytes) in halves(row).enumerate() {
                    target[place(row - group, column)] = F16(u16::from_le_bytes(*bytes));
                }
            })),
            WeightFormat::Bf16 => Self::Bf16(arrange(weight, (rows, len), |row, group, target| {
                for (column, bytes) in halves(row).enumerate() {
                    target[place(row - group, column)] = Bf16(u16::from_le_bytes(*bytes));
                }
            })),
            _ => Self::F32(arrange(weight, (rows, len), |row, group, target| {
                let mut values = vec![0.0; weight.columns()];
                weight.read_row(row, &mut values);
                for (column, value) in values.iter().enumerate() {
                    target[place(row - group, column)] = *value;
                }
            })),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(held) => held.bytes(),
            Self::F16(held) => held.bytes(),
            Self::Bf16(held) => held.bytes(),
        }
    }
}

/// Runs `put(row, first row of its group, the group's elements)` for every row.
fn arrange<T: Plain>(
    weight: &WeightBytes<'_>,
    (rows, len): (usize, usize),
    put: impl Fn(usize, usize, &mut [T]) + Sync,
) -> Aligned<T> {
    let mut held = Aligned::zeros(weight.rows().div_ceil(rows) * len);
    let groups = held.as_mut_slice().par_chunks_mut(len).enumerate();
    groups.for_each(|(group, target)| {
        let first = group * rows;
        for row in first..(first + rows).min(weight.rows()) {
            put(row, first, target);
        }
    });
    held
}
