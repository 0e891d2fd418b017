//! The launch of the look-up.

use crate::KernelError;
use crate::launch::{Args, ElementType, Ptr, Queue, launch_elements, narrow};

const OP: &str = "embedding";

/// `EmbeddingArgs` of `embedding.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct EmbeddingArgs {
    table: Ptr,
    ids: Ptr,
    out: Ptr,
    elements: i64,
    width: i32,
    unused: i32,
}

// SAFETY: three pointers, a 64-bit and two 32-bit integers, as in `embedding.cu`.
unsafe impl Args for EmbeddingArgs {}

/// Copies the rows of `ids`, u32, from `table` to `out`, `[ids][width]`.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes, and ids that are rows of the table.
pub(crate) unsafe fn gather(
    queue: &impl Queue,
    (table, ids, out): (Ptr, Ptr, Ptr),
    (rows, width): (usize, usize),
    element: ElementType,
) -> Result<(), KernelError> {
    let elements = rows * width;
    let width = narrow(OP, "width", width)?;
    let args = EmbeddingArgs { table, ids, out, elements: elements as i64, width, unused: 0 };
    // SAFETY: the caller's promise; `elements` are those of `out`.
    unsafe { launch_elements(queue, OP, element, elements, &args) }
}
