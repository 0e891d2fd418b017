//! The launch of the rotation.

use crate::KernelError;
use crate::launch::{Args, ElementType, Ptr, Queue, launch_elements, narrow};

const OP: &str = "rope";

/// `RopeArgs` of `rope.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct RopeArgs {
    x: Ptr,
    cos: Ptr,
    sin: Ptr,
    pairs: i64,
    heads: i32,
    half: i32,
}

// SAFETY: three pointers, a 64-bit and two 32-bit integers, as in `rope.cu`.
unsafe impl Args for RopeArgs {}

/// Turns `x`, `[rows][heads][2 * half]`, by the angles, f32 `[rows][half]`.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes.
pub(crate) unsafe fn rotate(
    queue: &impl Queue,
    (x, cos, sin): (Ptr, Ptr, Ptr),
    (rows, heads, half): (usize, usize, usize),
    element: ElementType,
) -> Result<(), KernelError> {
    let pairs = rows * heads * half;
    let (heads, half) = (narrow(OP, "heads", heads)?, narrow(OP, "head_dim", half)?);
    let args = RopeArgs { x, cos, sin, pairs: pairs as i64, heads, half };
    // SAFETY: the caller's promise; `pairs` are those of `x`.
    unsafe { launch_elements(queue, OP, element, pairs, &args) }
}
