//! The gate of Gemma's MLP: `gelu(gate) * up`, with the approximation of GELU that has a tanh.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;

use super::elementwise;
use crate::KernelError;
use crate::dispatch::level;
use crate::simd::vector_levels;

const OP: &str = "gelu_mul";

vector_levels! {
    fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32])
}

/// `gate / 2 * (1 + tanh(√(2/π) * (gate + 0.044715 gate³))) * up`, element by element, for two tensors of one shape.
///
/// # Errors
/// Operands of different shapes or other types than f32, or on a device this build can't use.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    elementwise::gated(OP, (gate, up), |gate, up, out| run(level(), gate, up, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, on_levels};
    use crate::tensor::from_host;

    #[test]
    fn vectors_agree_with_scalar_and_with_the_function() {
        let mut random = Random::new(4);
        for len in [0, 1, 15, 16, 17, 33, 20_000] {
            let gate: Vec<f32> = random.floats(len).iter().map(|v| v * 12.0).collect();
            let up = random.floats(len);
            let out = on_levels(|level| {
                let mut out = vec![0.0; len];
                elementwise::in_chunks(&gate, &up, &mut out, |gate, up, out| {
                    run(level, gate, up, out)
                });
                out
            });
            for i in 0..len {
                let x = f64::from(gate[i]);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                // `1 + tanh(u)` is `2 / (1 + exp(-2u))`, which has no cancellation.
                let expected = x / (1.0 + (-2.0 * inner).exp()) * f64::from(up[i]);
                let error = (f64::from(out[i]) - expected).abs();
                // Where the result is small, the rounding of the exponent counts.
                assert!(error <= 4e-5 * expected.abs() + 1e-30, "{x}: {expected}");
                if x.abs() < 3.0 {
                    assert!(error <= 2e-6 * expected.abs(), "{x}: {expected}");
                }
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        on_levels(|level| {
            let mut out = vec![0.0; 20];
            run(level, &[f32::NAN; 20], &[1.0; 20], &mut out);
            assert!(out.iter().all(|v| v.is_nan()));
            vec![]
        });
    }

    #[test]
    fn different_shapes_are_refused() {
        let gate = from_host(vec![0.0; 6], (2, 3)).unwrap();
        let up = from_host(vec![0.0; 6], (3, 2)).unwrap();
        assert!(matches!(gelu_mul(&gate, &up), Err(KernelError::Shape { operand: "up", .. })));
    }
}
