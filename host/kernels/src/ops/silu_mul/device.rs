//! The launch of the gate.

use crate::KernelError;
use crate::launch::{Args, ElementType, Ptr, Queue, launch_elements};

const OP: &str = "silu_mul";

/// `SiluMulArgs` of `silu_mul.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct SiluMulArgs {
    gate: Ptr,
    up: Ptr,
    out: Ptr,
    elements: i64,
}

// SAFETY: three pointers and a 64-bit integer, as in `silu_mul.cu`.
unsafe impl Args for SiluMulArgs {}

/// `silu(gate) * up` of so many elements.
///
/// # Safety
/// As [`Queue::launch`]: three runs of `elements` elements.
pub(crate) unsafe fn gate(
    queue: &impl Queue,
    (gate, up, out): (Ptr, Ptr, Ptr),
    elements: usize,
    element: ElementType,
) -> Result<(), KernelError> {
    let args = SiluMulArgs { gate, up, out, elements: elements as i64 };
    // SAFETY: the caller's promise.
    unsafe { launch_elements(queue, OP, element, elements, &args) }
}
