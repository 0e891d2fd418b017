//! Rotary embedding on a device.

use candle_core::{Device, Tensor};

use super::RopeAngles;
use super::device::rotate;
use crate::KernelError;
use crate::cuda::{Operand, write_to};
use crate::launch::ElementType;
use crate::tensor::{rows, shape_error};

const OP: &str = "rope";

/// The angles of a step's rows on a device, the same for all layers.
#[derive(Debug)]
pub struct DeviceAngles {
    cos: Tensor,
    sin: Tensor,
    head_dim: usize,
    rows: usize,
}

impl DeviceAngles {
    /// Copies `angles` to `device`.
    ///
    /// # Errors
    /// No memory, or angles that turn a part of each head alone.
    pub fn new(angles: &RopeAngles, device: &Device) -> Result<Self, KernelError> {
        if 2 * angles.half != angles.head_dim {
            let (value, bound) = (2 * angles.half, angles.head_dim);
            let what = "rotary width, which must be the head's";
            return Err(KernelError::Bound { op: OP, what, value, bound });
        }
        let copy = |values: &[f32]| Tensor::from_slice(values, values.len(), device);
        let (cos, sin) = (copy(&angles.cos)?, copy(&angles.sin)?);
        Ok(Self { cos, sin, head_dim: angles.head_dim, rows: angles.rows })
    }
}

/// Turns each head of `x` by the angle of its row, in place: `[rows, heads * head_dim]`.
///
/// # Errors
/// Another number of rows than `angles` has, a width that is not whole heads, another type than f32, f16
/// or bf16, or a failed launch.
pub fn rope(x: &Tensor, angles: &DeviceAngles) -> Result<(), KernelError> {
    let element = ElementType::of(OP, "x", x.dtype())?;
    let width = x.dims().last().copied().unwrap_or(0);
    let found = rows(OP, "x", x, width)?;
    if found != angles.rows || width % angles.head_dim != 0 {
        let expected = [angles.rows, width.next_multiple_of(angles.head_dim)];
        return Err(shape_error(OP, "x", &expected, x.dims()));
    }
    let (heads, half) = (width / angles.head_dim, angles.head_dim / 2);
    let held = [Operand::hold(OP, "cos", &angles.cos)?, Operand::hold(OP, "sin", &angles.sin)?];
    write_to(OP, x, |queue, x| {
        let [(cos, _cos), (sin, _sin)] = [held[0].ptr(queue)?, held[1].ptr(queue)?];
        // SAFETY: `x` has `found` rows of `heads` heads, the angles a run of `half` per row.
        unsafe { rotate(queue, (x, cos, sin), (found, heads, half), element) }
    })
}
