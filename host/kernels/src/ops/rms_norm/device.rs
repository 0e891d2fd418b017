//! The launch of the norm.

use crate::KernelError;
use crate::launch::{Args, ElementType, Grid, Ptr, Queue, check_aligned, narrow};

const OP: &str = "rms_norm";
const THREADS: u32 = 256;

/// `RmsNormArgs` of `rms_norm.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct RmsNormArgs {
    x: Ptr,
    sum: Ptr,
    weight: Ptr,
    out: Ptr,
    width: i32,
    eps: f32,
}

// SAFETY: four pointers and two 32-bit numbers, as in `rms_norm.cu`.
unsafe impl Args for RmsNormArgs {}

/// Addresses of `x`, `[rows][width]`, of the running sum if there is one, of the weight and the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) x: Ptr,
    pub(crate) sum: Option<Ptr>,
    pub(crate) weight: Ptr,
    pub(crate) out: Ptr,
}

/// Norms `rows` rows; with a running sum, adds each to it first.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes.
pub(crate) unsafe fn norm(
    queue: &impl Queue,
    memory: Memory,
    (rows, width): (usize, usize),
    eps: f32,
    element: ElementType,
) -> Result<(), KernelError> {
    let Memory { x, sum, weight, out } = memory;
    for pointer in [Some(x), sum, Some(weight), Some(out)].into_iter().flatten() {
        check_aligned(OP, pointer, width)?;
    }
    let sum = sum.unwrap_or(Ptr(0));
    let args = RmsNormArgs { x, sum, weight, out, width: narrow(OP, "width", width)?, eps };
    let shared = THREADS as usize / 32 * size_of::<f32>();
    match Grid::new(OP, [rows, 1], THREADS, shared)? {
        // SAFETY: the caller's promise; one block per row.
        Some(grid) => unsafe { queue.launch(&format!("{OP}_{}", element.suffix()), grid, &args) },
        None => Ok(()),
    }
}
