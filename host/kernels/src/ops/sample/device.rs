//! The launches of sampling, and adjustments as kernels take them.

use super::{LogitAdjustment, OP};
use crate::KernelError;
use crate::launch::{Args, Grid, Ptr, Queue, narrow};

const ADJUST_THREADS: u32 = 128;
const THREADS: u32 = 512;
/// A vocabulary whose weights could overflow a sum.
const VOCAB_MAX: usize = 1 << 23;

/// `AdjustItem` of `sample.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct AdjustItem {
    row: i32,
    token: i32,
    repetition: f32,
    subtract: f32,
    add: f32,
}

/// `SampleArgs` of `sample.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct SampleArgs {
    logits: Ptr,
    items: Ptr,
    rows: Ptr,
    tokens: Ptr,
    vocab: i32,
    item_count: i32,
}

// SAFETY: four pointers and two 32-bit integers, as in `sample.cu`.
unsafe impl Args for SampleArgs {}

/// The adjustments as kernels take them.
///
/// # Errors
/// A row or token that is not there, or two adjustments of one logit.
pub(crate) fn items_of(
    adjustments: &[LogitAdjustment],
    (rows, vocab): (usize, usize),
) -> Result<Vec<AdjustItem>, KernelError> {
    let mut seen = std::collections::HashSet::with_capacity(adjustments.len());
    let item = |a: &LogitAdjustment| {
        for (what, value, bound) in [("row", a.row, rows), ("token", a.token as usize, vocab)] {
            if value >= bound {
                return Err(KernelError::Bound { op: OP, what, value, bound });
            }
        }
        if !seen.insert((a.row, a.token)) {
            return Err(KernelError::Size { op: OP, what: "two adjustments of one logit" });
        }
        let (row, token) = (narrow(OP, "row", a.row)?, narrow(OP, "token", a.token as usize)?);
        Ok(AdjustItem { row, token, repetition: a.repetition, subtract: a.subtract, add: a.add })
    };
    adjustments.iter().map(item).collect()
}

/// Addresses of the logits, f32 `[rows][vocab]`, and of copies of the items, the rows, and a u32 per row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) logits: Ptr,
    pub(crate) items: Ptr,
    pub(crate) rows: Ptr,
    pub(crate) tokens: Ptr,
}

/// Adjusts the logits in place and chooses a token per row.
///
/// # Safety
/// As [`Queue::launch`]: memory of these sizes, items within them.
pub(crate) unsafe fn choose(
    queue: &impl Queue,
    memory: Memory,
    (rows, vocab): (usize, usize),
    items: usize,
) -> Result<(), KernelError> {
    if vocab == 0 || vocab > VOCAB_MAX {
        return Err(KernelError::Bound { op: OP, what: "vocab", value: vocab, bound: VOCAB_MAX });
    }
    let args = SampleArgs {
        logits: memory.logits,
        items: memory.items,
        rows: memory.rows,
        tokens: memory.tokens,
        vocab: vocab as i32,
        item_count: narrow(OP, "adjustments", items)?,
    };
    let blocks = items.div_ceil(ADJUST_THREADS as usize);
    if let Some(grid) = Grid::new(OP, [blocks, 1], ADJUST_THREADS, 0)? {
        // SAFETY: the caller's promise.
        unsafe { queue.launch("sample_adjust", grid, &args)? };
    }
    let shared = THREADS as usize / 32 * size_of::<u64>();
    if let Some(grid) = Grid::new(OP, [rows, 1], THREADS, shared)? {
        // SAFETY: the caller's promise; one block per row.
        unsafe { queue.launch("sample_rows", grid, &args)? };
    }
    Ok(())
}
