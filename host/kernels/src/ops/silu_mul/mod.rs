//! The gate of the MLP: `silu(gate) * up`.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;

use super::elementwise;
use crate::KernelError;
use crate::dispatch::level;
use crate::simd::vector_levels;

const OP: &str = "silu_mul";

vector_levels! {
    fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32])
}

/// `gate / (1 + exp(-gate)) * up`, element by element, for two tensors of one shape.
///
/// # Errors
/// Operands of different shapes or other types than f32, or on a device this build can't use.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    elementwise::gated(OP, (gate, up), |gate, up, out| run(level(), gate, up, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, on_levels};
    use crate::tensor::from_host;

    #[test]
    fn vectors_agree_with_scalar_and_with_the_function() {
        let mut random = Random::new(3);
        for len in [0, 1, 15, 16, 17, 33, 20_000] {
            let gate: Vec<f32> = random.floats(len).iter().map(|v| v * 120.0).collect();
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
                let expected = x / (1.0 + (-x).exp()) * f64::from(up[i]);
                let error = (f64::from(out[i]) - expected).abs();
                assert!(error <= 1e-6 * expected.abs().max(1e-30) + 1e-30, "{x}: {expected}");
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
        assert!(matches!(silu_mul(&gate, &up), Err(KernelError::Shape { operand: "up", .. })));
    }
}
