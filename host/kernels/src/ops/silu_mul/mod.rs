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
use crate::dispatch::level;
use crate::simd::vector_levels;
use crate::{KernelError, on_device};

const OP: &str = "silu_mul";

vector_levels! {
    fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32])
}

/// `gate / (1 + exp(-gate)) * up`, element by element, for two tensors of one shape.
///
/// # Errors
/// Operands of different shapes or other types than f32, or on a device this build can't use.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    elementwise::gated(OP, (gate, up), on_device::silu_mul, |gate, up, out| {
        run(level(), gate, up, out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::elementwise::testing::{check_gate, check_shapes};

    #[test]
    fn is_the_function_at_every_level() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        check_gate(run, 120.0, (silu, |_| 1e-6));
        check_shapes(silu_mul);
    }
}
