//! What the tests of all ops share: random floats, every level, equality of bits.

use crate::WeightFormat;
use crate::dispatch::{Level, available};

/// A small generator of floats within -1 and 1.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// Values as a file has them, in a format without blocks.
pub(crate) fn weight_of(values: &[f32], format: WeightFormat) -> Vec<u8> {
    let bytes = |value: &f32| match format {
        WeightFormat::F32 => value.to_le_bytes().to_vec(),
        WeightFormat::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
        WeightFormat::Bf16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
        other => panic!("{other:?} has blocks"),
    };
    values.iter().flat_map(bytes).collect()
}

pub(crate) fn assert_same_bits(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "element {i}: {a} against {b}");
    }
}

/// Runs `op` at every level this CPU has; all must agree with scalar, which is returned.
pub(crate) fn on_levels(op: impl Fn(Level) -> Vec<f32>) -> Vec<f32> {
    let expected = op(Level::Scalar);
    for level in available() {
        assert_same_bits(&op(level), &expected);
    }
    expected
}
