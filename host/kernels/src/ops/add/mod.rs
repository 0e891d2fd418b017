//! The residual connection: `x + y`, in the place of `x`.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use super::ELEMENTS_PER_TASK;
use crate::pool::for_chunks;
use crate::tensor::{Place, exactly, floats_mut, host_floats, place};
use crate::{KernelError, on_device};

const OP: &str = "add";

/// Adds `y` to `x`, element by element.
///
/// # Errors
/// Operands of different shapes or other types than f32, or on a device this build can't use.
pub fn add(x: Tensor, y: &Tensor) -> Result<Tensor, KernelError> {
    exactly(OP, "y", y, x.dims())?;
    if place(OP, x.device())? == Place::Cuda {
        return on_device::add(&x, y);
    }
    {
        let y = host_floats(OP, "y", y)?;
        x.inplace_op1(&Add(y.as_slice()?))?;
    }
    Ok(x)
}

struct Add<'a>(&'a [f32]);

impl InplaceOp1 for Add<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let x = floats_mut(OP, storage, layout)?;
        for_chunks(x, ELEMENTS_PER_TASK, |index, x| {
            let y = &self.0[index * ELEMENTS_PER_TASK..][..x.len()];
            // One rounding each: the compiler's vectors give the same bits.
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits};
    use crate::tensor::from_host;

    #[test]
    fn is_the_sum_in_place() {
        let mut random = Random::new(51);
        for len in [0, 1, 5000, 20_000] {
            let (x, y) = (random.floats(len), random.floats(len));
            let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let sum = add(from_host(x, len).unwrap(), &from_host(y, len).unwrap()).unwrap();
            assert_same_bits(&sum.to_vec1::<f32>().unwrap(), &expected);
        }
        let x = from_host(vec![0.0; 6], (2, 3)).unwrap();
        let y = from_host(vec![0.0; 6], (3, 2)).unwrap();
        assert!(matches!(add(x, &y), Err(KernelError::Shape { operand: "y", .. })));
    }
}
