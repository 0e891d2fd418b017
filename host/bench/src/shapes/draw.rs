//! Seeded weights, nearly normal, the same on every machine. Knows nothing of tensors' names.

use std::io::{self, Write};

use half::{bf16, f16};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Values of a sum of four bytes.
const SUMS: usize = 4 * 255 + 1;
/// Values written at a time.
const CHUNK: usize = 16 * 1024;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// Brain floating point, 2 bytes.
    Bf16,
    /// IEEE half precision, 2 bytes.
    F16,
    /// IEEE single precision, 4 bytes.
    F32,
}

impl Dtype {
    /// Bytes of one value.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// As `config.json` writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    /// As safetensors writes it.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    fn encode(self, value: f32) -> [u8; 4] {
        let mut bytes = [0; 4];
        match self {
            Self::Bf16 => bytes[..2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            Self::F16 => bytes[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Self::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
        }
        bytes
    }
}

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    /// The same number everywhere.
    Constant(f32),
    /// Mean 0 and this standard deviation, none beyond 3.46 of it.
    Normal(f32),
}

/// Writes `count` values of a tensor; the same `seed` and `name` give the same bytes.
pub(super) fn write(
    out: &mut impl Write,
    (dtype, fill): (Dtype, Fill),
    count: usize,
    (seed, name): (u64, &str),
) -> io::Result<()> {
    let width = dtype.bytes();
    let table = table(dtype, fill);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(name_hash(name));
    let (mut random, mut bytes) = (vec![0; 4 * CHUNK], Vec::with_capacity(width * CHUNK));
    let mut left = count;
    while left > 0 {
        let chunk = left.min(CHUNK);
        rng.fill_bytes(&mut random[..4 * chunk]);
        bytes.clear();
        for four in random[..4 * chunk].chunks_exact(4) {
            let sum: usize = four.iter().map(|byte| usize::from(*byte)).sum();
            bytes.extend_from_slice(&table[sum][..width]);
        }
        out.write_all(&bytes)?;
        left -= chunk;
    }
    Ok(())
}

/// The stored form of each sum of four random bytes. Four are nearly normal already, and adding
/// integers gives the same bits everywhere, which logarithms would not.
fn table(dtype: Dtype, fill: Fill) -> Vec<[u8; 4]> {
    // A byte's variance is (256^2 - 1) / 12, and the four are independent.
    let deviation = (4.0 * f64::from(256 * 256 - 1) / 12.0).sqrt();
    let value = |sum: usize| match fill {
        Fill::Constant(value) => value,
        Fill::Normal(std) => {
            let offset = sum as f64 - (SUMS - 1) as f64 / 2.0;
            (f64::from(std) * offset / deviation) as f32
        }
    };
    (0..SUMS).map(|sum| dtype.encode(value(sum))).collect()
}

/// FNV-1a: tensors of one seed must not be alike.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(fill: Fill, count: usize, seed: u64, name: &str) -> Vec<f32> {
        let mut bytes = Vec::new();
        write(&mut bytes, (Dtype::F32, fill), count, (seed, name)).expect("memory");
        let (values, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty());
        values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn values_have_the_wanted_mean_and_deviation() {
        let count = 3 * CHUNK + 7;
        let values = drawn(Fill::Normal(0.5), count, 1, "a");
        assert_eq!(values.len(), count);
        let mean = values.iter().sum::<f32>() / count as f32;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / count as f32;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.005, "{variance}");
        assert!(values.iter().all(|value| value.abs() < 0.5 * 3.46));
        assert!(drawn(Fill::Constant(1.0), 9, 1, "a").iter().all(|value| *value == 1.0));
    }

    #[test]
    fn seed_and_name_decide() {
        let normal = Fill::Normal(1.0);
        assert_eq!(drawn(normal, 100, 7, "x"), drawn(normal, 100, 7, "x"));
        assert_ne!(drawn(normal, 100, 7, "x"), drawn(normal, 100, 8, "x"));
        assert_ne!(drawn(normal, 100, 7, "x"), drawn(normal, 100, 7, "y"));
        // Fixed for ever: files made with one version are made again with the next.
        let first = drawn(normal, 3, 7, "x");
        assert_eq!(first, [-0.778_075_64, -0.669_821_6, 0.439_781_87]);
    }

    #[test]
    fn narrow_types_round() {
        let check = |dtype: Dtype, expect: &[u8]| {
            let mut bytes = Vec::new();
            write(&mut bytes, (dtype, Fill::Constant(1.5)), 2, (0, "")).expect("memory");
            assert_eq!(bytes, expect);
        };
        check(Dtype::Bf16, &[0xc0, 0x3f, 0xc0, 0x3f]);
        check(Dtype::F16, &[0x00, 0x3e, 0x00, 0x3e]);
        check(Dtype::F32, &[0, 0, 0xc0, 0x3f, 0, 0, 0xc0, 0x3f]);
    }
}
