//! GGML's blocks: what the bytes of a quantized row mean.
//!
//! Source: `block_q8_0`, `block_q4_0`, `block_q4_K` and `block_q6_K` of ggml-common.h, and their
//! `dequantize_row_*` in ggml-quants.c. A row is seen here as runs of 32 inputs, in whatever larger
//! blocks the format has them.

use half::f16;

use crate::WeightFormat;

/// Inputs of a run.
pub(crate) const RUN: usize = 32;

/// 32 weights: `scale[half] * (quant - offset) - min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    /// Unsigned, too large by [`offset`].
    pub(crate) quants: [u8; RUN],
    /// Bits of the f16 that multiplies the scales.
    pub(crate) scale: u16,
    /// Bits of the f16 that multiplies the minimum; zero without one.
    pub(crate) min: u16,
    /// Factors of the scale: of inputs 0 to 15 and of 16 to 31. As signed bytes.
    pub(crate) scale_factors: [u8; 2],
    /// Factor of the minimum.
    pub(crate) min_factor: u8,
}

/// What the quants of a format are too large by.
pub(crate) fn offset(format: WeightFormat) -> i32 {
    match format {
        WeightFormat::Q8_0 => 128,
        WeightFormat::Q4_0 => 8,
        WeightFormat::Q6K => 32,
        _ => 0,
    }
}

/// Run `index` of a row.
///
/// # Panics
/// If the row is shorter, or the format has no blocks.
pub(crate) fn run(format: WeightFormat, row: &[u8], index: usize) -> Run {
    let runs = format.block_len() / RUN;
    let block = &row[index / runs * format.block_bytes()..][..format.block_bytes()];
    let index = index % runs;
    match format {
        WeightFormat::Q8_0 => q8_0(block),
        WeightFormat::Q4_0 => q4_0(block),
        WeightFormat::Q4K => q4_k(block, index),
        WeightFormat::Q6K => q6_k(block, index),
        other => unreachable!("{other:?} has no blocks"),
    }
}

fn bits(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn q8_0(block: &[u8]) -> Run {
    let mut quants = [0; RUN];
    for (quant, byte) in quants.iter_mut().zip(&block[2..]) {
        *quant = byte ^ 0x80;
    }
    Run { quants, scale: bits(block), min: 0, scale_factors: [1; 2], min_factor: 0 }
}

fn q4_0(block: &[u8]) -> Run {
    let mut quants = [0; RUN];
    for (i, byte) in block[2..].iter().enumerate() {
        quants[i] = byte & 15;
        quants[i + 16] = byte >> 4;
    }
    Run { quants, scale: bits(block), min: 0, scale_factors: [1; 2], min_factor: 0 }
}

fn q4_k(block: &[u8], index: usize) -> Run {
    let packed = &block[4..16];
    // `get_scale_min_k4`: six bits each, the last four runs in pieces.
    let (factor, min_factor) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        (
            (packed[index + 4] & 15) | (packed[index - 4] >> 6 << 4),
            (packed[index + 4] >> 4) | (packed[index] >> 6 << 4),
        )
    };
    let mut quants = [0; RUN];
    // Two runs share 32 bytes.
    let bytes = &block[16 + index / 2 * RUN..][..RUN];
    for (quant, byte) in quants.iter_mut().zip(bytes) {
        *quant = if index.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
    }
    let (scale, min) = (bits(block), bits(&block[2..]));
    Run { quants, scale, min, scale_factors: [factor; 2], min_factor }
}

fn q6_k(block: &[u8], index: usize) -> Run {
    let (low, high, factors) = (&block[..128], &block[128..192], &block[192..208]);
    // Each half of 128 weights is four runs: two share the low bits, all four the high ones.
    let (half, run) = (index / 4, index % 4);
    let mut quants = [0; RUN];
    for (i, quant) in quants.iter_mut().enumerate() {
        let low = low[half * 64 + run % 2 * RUN + i] >> (run / 2 * 4) & 15;
        let high = high[half * RUN + i] >> (2 * run) & 3;
        *quant = low | high << 4;
    }
    let scale_factors = [factors[2 * index], factors[2 * index + 1]];
    Run { quants, scale: bits(&block[208..]), min: 0, scale_factors, min_factor: 0 }
}

impl Run {
    /// Scale of a half of the run.
    pub(crate) fn scale(&self, half: usize) -> f32 {
        let factor = self.scale_factors[half].cast_signed();
        f16::from_bits(self.scale).to_f32() * f32::from(factor)
    }

    /// What is taken from every weight of the run.
    pub(crate) fn min(&self) -> f32 {
        f16::from_bits(self.min).to_f32() * f32::from(self.min_factor)
    }
}

/// Writes the weights of a row, whole blocks, to `target`.
pub(crate) fn dequantize(format: WeightFormat, row: &[u8], target: &mut [f32]) {
    let offset = offset(format);
    for (index, target) in target.chunks_exact_mut(RUN).enumerate() {
        let run = run(format, row, index);
        let min = run.min();
        for (i, (value, quant)) in target.iter_mut().zip(run.quants).enumerate() {
            *value = run.scale(i / 16) * (i32::from(quant) - offset) as f32 - min;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::ops::testing::Random;

    #[test]
    fn rows_mean_what_another_reader_says() {
        for (format, theirs) in [
            (WeightFormat::Q8_0, GgmlDType::Q8_0),
            (WeightFormat::Q4_0, GgmlDType::Q4_0),
            (WeightFormat::Q4K, GgmlDType::Q4K),
            (WeightFormat::Q6K, GgmlDType::Q6K),
        ] {
            let values = Random::new(31).floats(1024);
            let tensor = Tensor::from_vec(values.clone(), (1, 1024), &Device::Cpu).unwrap();
            let quantized = QTensor::quantize(&tensor, theirs).unwrap();
            let bytes = quantized.data().unwrap();
            let expected = quantized.dequantize(&Device::Cpu).unwrap();
            let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut found = vec![0.0; 1024];
            dequantize(format, &bytes, &mut found);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (found - expected).abs();
                assert!(error <= 1e-6, "{format:?} {i}: {found} against {expected}");
            }
            // Not all the same by chance.
            let error = found.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 0.16 && error > 0.0, "{format:?}: {error}");
        }
    }
}
