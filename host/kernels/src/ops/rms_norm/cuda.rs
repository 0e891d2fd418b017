//! The norm on a device.

use candle_core::Tensor;

use super::device::{Memory, norm};
use crate::KernelError;
use crate::cuda::{Operand, empty, write_to};
use crate::launch::{ElementType, Ptr};
use crate::tensor::{exactly, rows};

const OP: &str = "rms_norm";

/// `x / sqrt(mean(x²) + eps) * weight` over the rows of `x`, `[rows, width]`; f32, f16 or bf16, summed in
/// f32.
///
/// # Errors
/// Operands of other shapes or types, or a failed launch.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, KernelError> {
    on(x, weight, eps, |_, run| run(None))
}

/// Adds `x` to `sum` in place, and norms the result: the end of one block of a model and the beginning of
/// the next in one pass.
///
/// # Errors
/// As [`rms_norm`].
pub fn add_rms_norm(
    x: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    eps: f32,
) -> Result<Tensor, KernelError> {
    exactly(OP, "sum", sum, x.dims())?;
    if sum.dtype() != x.dtype() {
        return Err(KernelError::Dtype { op: OP, operand: "sum", found: sum.dtype() });
    }
    on(x, weight, eps, |op, run| write_to(op, sum, |_, sum| run(Some(sum))))
}

type Run<'a> = &'a dyn Fn(Option<Ptr>) -> Result<(), KernelError>;

fn on(
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    with_sum: impl Fn(&'static str, Run<'_>) -> Result<(), KernelError>,
) -> Result<Tensor, KernelError> {
    let element = ElementType::of(OP, "x", x.dtype())?;
    let width = x.dims().last().copied().unwrap_or(0);
    let found = rows(OP, "x", x, width)?;
    exactly(OP, "weight", weight, &[width])?;
    if weight.dtype() != x.dtype() {
        return Err(KernelError::Dtype { op: OP, operand: "weight", found: weight.dtype() });
    }
    // SAFETY: the norm writes every element.
    let out = unsafe { empty(x.shape(), x.dtype(), x.device())? };
    let held = [Operand::hold(OP, "x", x)?, Operand::hold(OP, "weight", weight)?];
    write_to(OP, &out, |queue, out| {
        with_sum(OP, &|sum| {
            let [(x, _x), (weight, _weight)] = [held[0].ptr(queue)?, held[1].ptr(queue)?];
            let memory = Memory { x, sum, weight, out };
            // SAFETY: `x`, `out` and `sum` have `found` rows of `width`, the weight has one.
            unsafe { norm(queue, memory, (found, width), eps, element) }
        })
    })?;
    Ok(out)
}
