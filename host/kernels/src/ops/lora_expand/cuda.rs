//! Expand on a device.

use candle_core::{DType, Tensor};

use crate::KernelError;
use crate::cuda::{Operand, write_to};
use crate::ops::lora_shrink::cuda::{DeviceStep, DeviceTable};
use crate::ops::lora_shrink::step::expand;
use crate::tensor::{exactly, rows};

const OP: &str = "lora_expand";

/// Adds `scale * h Bᵀ` of each span to its rows of `y`, in place: `[rows, out_features]` of the table's
/// type. `hidden` is what shrink gave for the same step. Rows of no span are not touched.
///
/// # Errors
/// Operands of other widths or types, a step of other ranks or more rows, or a failed launch.
pub fn lora_expand(
    y: &Tensor,
    hidden: &Tensor,
    table: &DeviceTable,
    step: &DeviceStep,
) -> Result<(), KernelError> {
    table.check_dtype(OP, y)?;
    exactly(OP, "hidden", hidden, &[step.hidden_len()])?;
    if hidden.dtype() != DType::F32 {
        return Err(KernelError::Dtype { op: OP, operand: "hidden", found: hidden.dtype() });
    }
    if step.hidden_len() == 0 {
        return Ok(());
    }
    let (width, found) = (table.out_features(), rows(OP, "y", y, table.out_features())?);
    let states = Operand::hold(OP, "hidden", hidden)?;
    write_to(OP, y, |queue, y| {
        let (states, _states) = states.ptr(queue)?;
        step.on((OP, table), (y, states), (width, found), |step, memory| {
            // SAFETY: `y` has `found` rows of `width`, which `on` checked against the step; `states` are
            // the step's; the table holds the weights of its entries.
            unsafe { expand(queue, step, memory) }
        })
    })
}
