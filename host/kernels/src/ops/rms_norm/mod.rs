//! Root-mean-square norm of each row, times a weight.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;

use super::ELEMENTS_PER_TASK;
use crate::KernelError;
use crate::dispatch::{Level, level};
use crate::pool::for_chunks;
use crate::simd::vector_levels;
use crate::tensor::{Place, exactly, from_host, host_floats, place, shape_error};

const OP: &str = "rms_norm";

vector_levels! {
    fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32])
}

/// `x / sqrt(mean(x²) + eps) * weight` over the last dimension.
///
/// `x` is `[.., width]`, `weight` is `[width]`; the result has the shape of `x`.
///
/// # Errors
/// Operands of other shapes or types than f32, or on a device this build can't use.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, KernelError> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 {
        return Err(shape_error(OP, "x", &[1], x.dims()));
    }
    exactly(OP, "weight", weight, &[width])?;
    if place(OP, x.device())? == Place::Cuda {
        return crate::on_device::rms_norm(x, weight, eps);
    }
    let (source, scale) = (host_floats(OP, "x", x)?, host_floats(OP, "weight", weight)?);
    let mut out = vec![0.0; x.elem_count()];
    on_rows(level(), source.as_slice()?, scale.as_slice()?, eps, &mut out);
    from_host(out, x.shape())
}

fn on_rows(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    let rows_per_task = ELEMENTS_PER_TASK.div_ceil(width);
    let chunk = rows_per_task * width;
    if x.len() <= chunk {
        return run(level, x, weight, eps, out);
    }
    for_chunks(out, chunk, |index, out| {
        run(level, &x[index * chunk..][..out.len()], weight, eps, out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};

    #[test]
    fn vectors_agree_with_scalar() {
        let mut random = Random::new(1);
        for (rows, width) in [(1, 1), (3, 15), (2, 16), (5, 17), (4, 64), (7, 100), (300, 128)] {
            let (x, weight) = (random.floats(rows * width), random.floats(width));
            on_levels(|level| {
                let mut out = vec![0.0; x.len()];
                on_rows(level, &x, &weight, 1e-5, &mut out);
                out
            });
        }
    }

    #[test]
    fn is_the_norm_and_a_row_is_alone() {
        let mut random = Random::new(2);
        let (x, weight) = (random.floats(3 * 40), random.floats(40));
        let mut out = vec![0.0; x.len()];
        on_rows(level(), &x, &weight, 1e-6, &mut out);
        for row in 0..3 {
            let x = &x[row * 40..(row + 1) * 40];
            let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 40.0;
            for i in 0..40 {
                let expected = f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weight[i]);
                assert!((f64::from(out[row * 40 + i]) - expected).abs() < 1e-5);
            }
            let mut alone = vec![0.0; 40];
            on_rows(level(), x, &weight, 1e-6, &mut alone);
            assert_same_bits(&alone, &out[row * 40..(row + 1) * 40]);
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let x = from_host(vec![0.0; 6], (2, 3)).unwrap();
        let weight = from_host(vec![0.0; 2], 2).unwrap();
        assert!(matches!(
            rms_norm(&x, &weight, 1e-6),
            Err(KernelError::Shape { operand: "weight", .. })
        ));
        let doubles = x.to_dtype(candle_core::DType::F64).unwrap();
        let weight = from_host(vec![0.0; 3], 3).unwrap();
        assert!(matches!(rms_norm(&doubles, &weight, 1e-6), Err(KernelError::Dtype { .. })));
        let turned = from_host(vec![0.0; 9], (3, 3)).unwrap().t().unwrap();
        assert!(matches!(rms_norm(&turned, &weight, 1e-6), Err(KernelError::NotContiguous { .. })));
    }
}
