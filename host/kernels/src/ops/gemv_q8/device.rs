//! The weight as kernels have it, and the launches over it.

use half::f16;

use crate::KernelError;
use crate::launch::{Args, ElementType, Grid, Ptr, Queue, check_aligned, launch_elements, narrow};

const OP: &str = "gemv_q8";
const THREADS: u32 = 128;
/// Outputs of one block of threads.
const OUTPUTS: usize = 16;
/// Inputs that share a scale.
const BLOCK: usize = 32;
/// A block in a file: the scale, then the quants.
const FILE_BYTES: usize = 2 + BLOCK;
/// Most rows that one launch takes.
pub(crate) const ROWS_MAX: usize = 8;

/// `GemvQ8Args` of `gemv_q8.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct GemvQ8Args {
    x: Ptr,
    quants: Ptr,
    scales: Ptr,
    bias: Ptr,
    y: Ptr,
    rows: i32,
    inputs: i32,
    outputs: i32,
    blocks: i32,
}

// SAFETY: five pointers and four 32-bit integers, as in `gemv_q8.cu`.
unsafe impl Args for GemvQ8Args {}

/// Quants and scales of a weight, apart, so that both can be read sixteen bytes at a time.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// `[outputs][blocks][32]`
    pub(crate) quants: Vec<i8>,
    /// `[outputs][blocks]`
    pub(crate) scales: Vec<f16>,
}

impl Blocks {
    /// Takes apart the blocks of a Q8_0 tensor of `outputs` by `inputs`, as they lie in a file.
    ///
    /// # Errors
    /// Sizes of zero or that are not whole blocks, bytes of another number, or a scale that is not finite.
    pub(crate) fn of_file(
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Self, KernelError> {
        if outputs == 0 || inputs == 0 || !inputs.is_multiple_of(BLOCK) {
            return Err(KernelError::Size { op: OP, what: "weight that is not whole blocks" });
        }
        let expected = outputs
            .checked_mul(inputs / BLOCK)
            .and_then(|count| count.checked_mul(FILE_BYTES))
            .ok_or(KernelError::Size { op: OP, what: "outputs * inputs" })?;
        if bytes.len() != expected {
            return Err(crate::tensor::shape_error(OP, "bytes", &[expected], &[bytes.len()]));
        }
        let (blocks, _) = bytes.as_chunks::<FILE_BYTES>();
        let scales: Vec<f16> =
            blocks.iter().map(|block| f16::from_le_bytes([block[0], block[1]])).collect();
        if !scales.iter().all(|scale| scale.is_finite()) {
            return Err(KernelError::Size { op: OP, what: "weight that is not finite" });
        }
        let quants = blocks.iter().flat_map(|block| &block[2..]).map(|q| q.cast_signed()).collect();
        Ok(Self { quants, scales })
    }
}

/// Addresses of a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    pub(crate) quants: Ptr,
    pub(crate) scales: Ptr,
    pub(crate) bias: Option<Ptr>,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

impl Weight {
    fn args(&self, x: Ptr, y: Ptr, rows: usize) -> Result<GemvQ8Args, KernelError> {
        Ok(GemvQ8Args {
            x,
            quants: self.quants,
            scales: self.scales,
            bias: self.bias.unwrap_or(Ptr(0)),
            y,
            rows: narrow(OP, "rows", rows)?,
            inputs: narrow(OP, "inputs", self.inputs)?,
            outputs: narrow(OP, "outputs", self.outputs)?,
            blocks: narrow(OP, "blocks", self.inputs.div_ceil(BLOCK))?,
        })
    }
}

/// `y = x Wᵀ + b` for up to [`ROWS_MAX`] rows: `x` is `[rows][inputs]`, `y` is `[rows][outputs]`.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes.
pub(crate) unsafe fn product(
    queue: &impl Queue,
    weight: &Weight,
    (x, y): (Ptr, Ptr),
    rows: usize,
    element: ElementType,
) -> Result<(), KernelError> {
    if rows > ROWS_MAX {
        return Err(KernelError::Bound { op: OP, what: "rows", value: rows, bound: ROWS_MAX });
    }
    check_aligned(OP, x, weight.inputs)?;
    check_aligned(OP, weight.quants, BLOCK)?;
    if rows == 0 {
        return Ok(());
    }
    let kernel = format!("{OP}_{}_{}", rows.next_power_of_two(), element.suffix());
    match Grid::new(OP, [weight.outputs.div_ceil(OUTPUTS), 1], THREADS, 0)? {
        // SAFETY: the caller's promise.
        Some(grid) => unsafe { queue.launch(&kernel, grid, &weight.args(x, y, rows)?) },
        None => Ok(()),
    }
}

/// Writes the weight as `element`, `[outputs][inputs]`.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes.
pub(crate) unsafe fn widen(
    queue: &impl Queue,
    weight: &Weight,
    out: Ptr,
    element: ElementType,
) -> Result<(), KernelError> {
    let elements = weight.outputs * weight.inputs;
    // SAFETY: the caller's promise; `elements` are those of `out`.
    unsafe { launch_elements(queue, "widen_q8", element, elements, &weight.args(Ptr(0), out, 0)?) }
}
