//! The gate of Gemma's MLP: `gelu(gate) * up`, with the approximation of GELU that has a tanh.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;

use super::elementwise;
use crate::dispatch::level;
use crate::simd::vector_levels;
use crate::{KernelError, on_device};

const OP: &str = "gelu_mul";

vector_levels! {
    fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32])
}

/// `gate / 2 * (1 + tanh(√(2/π) * (gate + 0.044715 gate³))) * up`, element by element, for two tensors of one shape.
///
/// # Errors
/// Operands of different shapes or other types than f32, or on a device this build can't use.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    elementwise::gated(OP, (gate, up), on_device::gelu_mul, |gate, up, out| {
        run(level(), gate, up, out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::elementwise::testing::{check_gate, check_shapes};

    #[test]
    fn is_the_function_at_every_level() {
        let gelu = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            // `1 + tanh(u)` is `2 / (1 + exp(-2u))`, which has no cancellation.
            x / (1.0 + (-2.0 * inner).exp())
        };
        // Where the result is small, the rounding of the exponent counts.
        check_gate(run, 12.0, (gelu, |x: f64| if x.abs() < 3.0 { 2e-6 } else { 4e-5 }));
        check_shapes(gelu_mul);
    }
}
