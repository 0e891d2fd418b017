//! A soft limit of scores or logits: `cap * tanh(x / cap)`.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use super::elementwise;
use crate::dispatch::level;
use crate::simd::vector_levels;
use crate::tensor::{Place, floats_mut, place};
use crate::{KernelError, on_device};

const OP: &str = "softcap";

vector_levels! {
    fn softcap(x: &mut [f32], cap: f32)
}

/// `cap * tanh(x / cap)`, element by element, in place.
///
/// # Errors
/// A cap that is not above zero, another type than f32, or a device this build can't use.
pub fn softcap(x: Tensor, cap: f32) -> Result<Tensor, KernelError> {
    check_cap(OP, cap)?;
    if place(OP, x.device())? == Place::Cuda {
        return on_device::softcap(&x, cap);
    }
    x.inplace_op1(&Cap(cap))?;
    Ok(x)
}

/// Refuses a cap that makes no sense.
pub(in crate::ops) fn check_cap(op: &'static str, cap: f32) -> Result<(), KernelError> {
    if cap.is_finite() && cap > 0.0 {
        return Ok(());
    }
    Err(KernelError::Size { op, what: "cap must be above zero" })
}

struct Cap(f32);

impl InplaceOp1 for Cap {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        elementwise::in_place(floats_mut(OP, storage, layout)?, |x| run(level(), x, self.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, on_levels};
    use crate::simd::math::tanh;
    use crate::tensor::from_host;

    #[test]
    fn vectors_agree_with_scalar_and_with_the_function() {
        let mut random = Random::new(5);
        for (len, cap) in [(0, 1.0), (1, 50.0), (16, 30.0), (33, 0.5), (20_000, 30.0)] {
            let x: Vec<f32> = random.floats(len).iter().map(|v| v * 4.0 * cap).collect();
            let out = on_levels(|level| {
                let mut out = x.clone();
                elementwise::in_place(&mut out, |x| run(level, x, cap));
                out
            });
            for (x, out) in x.iter().zip(out) {
                let cap = f64::from(cap);
                let expected = (f64::from(*x) / cap).tanh() * cap;
                assert!((f64::from(out) - expected).abs() <= 1e-6 * cap);
            }
        }
    }

    #[test]
    fn caps_that_make_no_sense_are_refused() {
        let x = || from_host(vec![1.0, -300.0], (1, 2)).unwrap();
        for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(softcap(x(), cap), Err(KernelError::Size { .. })));
        }
        let capped = softcap(x(), 2.0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(capped[0][1], -2.0 * tanh(1e9));
        let doubles = x().to_dtype(candle_core::DType::F64).unwrap();
        assert!(softcap(doubles, 2.0).is_err());
    }
}
