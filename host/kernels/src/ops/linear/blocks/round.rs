//! Floats to blocks, by the rules of GGML: when a checkpoint is quantized as it is loaded.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::f16;

use super::RUN;
use crate::ggml::{self, Run};
use crate::{KernelError, WeightFormat};

const OP: &str = super::super::OP;

/// Runs of a block of Q4_K.
const GROUP: usize = 8;
/// Largest quant of four bits.
const QUANT_MAX: f32 = 15.0;
/// Largest factor of six bits.
const FACTOR_MAX: f32 = 63.0;
/// Scales that are tried around the obvious one.
const TRIES: u8 = 21;

/// The runs of whole blocks of floats.
///
/// # Errors
/// Numbers that are not finite, or beyond what f16 holds: their scales could be lost.
pub(super) fn round(format: WeightFormat, values: Vec<f32>) -> Result<Vec<Run>, KernelError> {
    // NaN is not within either.
    if !values.iter().all(|value| value.abs() <= f16::MAX.to_f32()) {
        let what = "weight that is not finite, or too large for scales in f16";
        return Err(KernelError::Size { op: OP, what });
    }
    let count = values.len() / RUN;
    Ok(match format {
        WeightFormat::Q4K => {
            values.as_chunks::<{ GROUP * RUN }>().0.iter().flat_map(round_q4_k).collect()
        }
        _ => {
            let bytes = round_elsewhere(format, values)?;
            (0..count).map(|index| ggml::run(format, &bytes, index)).collect()
        }
    })
}

/// The formats that the tensor library rounds as GGML does.
fn round_elsewhere(format: WeightFormat, values: Vec<f32>) -> Result<Vec<u8>, KernelError> {
    let dtype = match format {
        WeightFormat::Q8_0 => GgmlDType::Q8_0,
        WeightFormat::Q4_0 => GgmlDType::Q4_0,
        _ => GgmlDType::Q6K,
    };
    let len = values.len();
    let tensor = Tensor::from_vec(values, (1, len), &Device::Cpu)?;
    Ok(QTensor::quantize(&tensor, dtype)?.data()?.into_owned())
}

/// A block of Q4_K: `quantize_row_q4_K_ref` of ggml-quants.c. The tensor library's own is of an older
/// rule, which loses runs of equal numbers.
fn round_q4_k(values: &[f32; GROUP * RUN]) -> [Run; GROUP] {
    let runs = values.as_chunks::<RUN>().0;
    let fits: [Fit; GROUP] = std::array::from_fn(|index| Fit::of(&runs[index]));
    let largest = |of: fn(&Fit) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (scale_max, min_max) = (largest(|fit| fit.scale), largest(|fit| fit.min));
    let (scale, min) = (f16::from_f32(scale_max / FACTOR_MAX), f16::from_f32(min_max / FACTOR_MAX));
    let factor = |value: f32, max: f32| {
        let inverse = if max > 0.0 { FACTOR_MAX / max } else { 0.0 };
        (inverse * value).round_ties_even().min(FACTOR_MAX) as u8
    };
    std::array::from_fn(|index| {
        let (fit, values) = (&fits[index], &runs[index]);
        let scale_factor = factor(fit.scale, scale_max);
        let min_factor = factor(fit.min, min_max);
        let (step, below) =
            (scale.to_f32() * f32::from(scale_factor), min.to_f32() * f32::from(min_factor));
        let mut quants = [0; RUN];
        for (quant, value) in quants.iter_mut().zip(values).filter(|_| step != 0.0) {
            *quant = ((value + below) / step).round_ties_even().clamp(0.0, QUANT_MAX) as u8;
        }
        let (scale, min) = (scale.to_bits(), min.to_bits());
        Run { quants, scale, min, scale_factors: [scale_factor; 2], min_factor }
    })
}

/// Scale and minimum that 32 numbers lie close to, large ones the closest.
struct Fit {
    scale: f32,
    /// What is taken away, not negative.
    min: f32,
}

impl Fit {
    /// `make_qkx2_quants` of ggml-quants.c.
    fn of(values: &[f32; RUN]) -> Self {
        let mean_square = values.iter().map(|value| value * value).sum::<f32>() / RUN as f32;
        let weights = values.map(|value| mean_square.sqrt() + value.abs());
        let smallest = values.iter().copied().fold(0.0, f32::min);
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let width = largest - smallest;
        if width <= 0.0 {
            return Self { scale: 0.0, min: -smallest };
        }
        let quants = |steps: f32| {
            values.map(|v| (steps / width * (v - smallest)).round_ties_even().clamp(0.0, QUANT_MAX))
        };
        let error = |quants: &[f32; RUN], scale: f32, min: f32| {
            let terms = quants.iter().zip(values).zip(&weights);
            terms
                .map(|((quant, value), weight)| weight * (scale * quant + min - value).powi(2))
                .sum()
        };
        let mut best = Self { scale: width / QUANT_MAX, min: smallest };
        let mut best_error: f32 = error(&quants(QUANT_MAX), best.scale, best.min);
        for attempt in 0..TRIES {
            let quants = quants(QUANT_MAX - 1.0 + 0.1 * f32::from(attempt));
            let Some((scale, min)) = line(&quants, values, &weights) else { continue };
            let error = error(&quants, scale, min);
            if error < best_error {
                (best, best_error) = (Self { scale, min }, error);
            }
        }
        Self { scale: best.scale, min: -best.min }
    }
}

/// Weighted least squares of `values` on `quants`, the minimum not above zero.
fn line(quants: &[f32; RUN], values: &[f32; RUN], weights: &[f32; RUN]) -> Option<(f32, f32)> {
    let (mut w, mut x, mut l, mut l2, mut xl) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((quant, value), weight) in quants.iter().zip(values).zip(weights) {
        w += weight;
        x += weight * value;
        l += weight * quant;
        l2 += weight * quant * quant;
        xl += weight * quant * value;
    }
    let determinant = w * l2 - l * l;
    if determinant <= 0.0 {
        return None;
    }
    let min = (l2 * x - l * xl) / determinant;
    if min > 0.0 {
        return Some((xl / l2, 0.0));
    }
    Some(((w * xl - x * l) / determinant, min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::Random;

    fn worst(values: &[f32]) -> f32 {
        let runs = round(WeightFormat::Q4K, values.to_vec()).unwrap();
        let read = runs
            .iter()
            .flat_map(|run| run.quants.map(|quant| run.scale(0) * f32::from(quant) - run.min()));
        read.zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn numbers_come_back_within_a_step() {
        let random = Random::new(41).floats(512);
        let cases: [(Vec<f32>, f32); 5] = [
            (random.clone(), 0.09),
            (random.iter().map(|v| v * 1e-3 + 1.0).collect(), 0.04),
            (random.iter().map(|v| v - 2.0).collect(), 0.12),
            (vec![0.5; 256], 0.01),
            (vec![-0.5; 256], 0.01),
        ];
        for (index, (values, bound)) in cases.into_iter().enumerate() {
            let worst = worst(&values);
            assert!(worst <= bound, "case {index}: off by {worst}");
        }
    }
}
