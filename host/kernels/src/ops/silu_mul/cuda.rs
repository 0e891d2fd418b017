//! The gate on a device.

use candle_core::Tensor;

use super::device::gate as launch_gate;
use crate::KernelError;
use crate::cuda::{Operand, empty, write_to};
use crate::launch::ElementType;
use crate::tensor::exactly;

const OP: &str = "silu_mul";

/// `gate / (1 + exp(-gate)) * up`, element by element, for two tensors of one shape and type: f32, f16 or
/// bf16, computed in f32.
///
/// # Errors
/// Operands of different shapes or types, or a failed launch.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    let element = ElementType::of(OP, "gate", gate.dtype())?;
    exactly(OP, "up", up, gate.dims())?;
    if up.dtype() != gate.dtype() {
        return Err(KernelError::Dtype { op: OP, operand: "up", found: up.dtype() });
    }
    // SAFETY: the kernel writes every element.
    let out = unsafe { empty(gate.shape(), gate.dtype(), gate.device())? };
    let elements = gate.elem_count();
    let held = [Operand::hold(OP, "gate", gate)?, Operand::hold(OP, "up", up)?];
    write_to(OP, &out, |queue, out| {
        let [(gate, _gate), (up, _up)] = [held[0].ptr(queue)?, held[1].ptr(queue)?];
        // SAFETY: three tensors of one shape.
        unsafe { launch_gate(queue, (gate, up, out), elements, element) }
    })?;
    Ok(out)
}
