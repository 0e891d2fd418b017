//! The LoRA work of a step on a device: which rows use which adapters, cut into pieces for blocks of
//! threads, and the launches over them.
//!
//! Work is cut by each adapter's own rank: nothing is padded to the largest, and rows without an
//! adapter are in no piece. The order of a sum depends on sizes of the adapter alone.

use std::ops::Range;

use crate::KernelError;
use crate::launch::{Args, ElementType, Grid, Ptr, Queue, check_aligned, narrow};

const OP: &str = "lora step";
/// As `lora.cuh` has them.
const ROW_RANKS: usize = 4;
const TILE_RANKS: usize = 32;
const TILE_ROWS: usize = 16;
const EXPAND_OUTPUTS: usize = 256;
const SHRINK_ROW_THREADS: u32 = 128;
const SHRINK_TILE_THREADS: u32 = 256;
const EXPAND_THREADS: u32 = 128;
const ITEMS_PER_LAUNCH: usize = 32_768;

/// Which kernels compute a span. They differ in rounding, so choose by what the rows are, never by how
/// many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraKernel {
    /// A block per row: for tokens that are decoded, each likely of another adapter.
    Rows,
    /// Tiles of sixteen rows on tensor cores: for prompts. In f32, rows are computed one by one.
    Tiles,
}

/// Rows of a step that use one adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoraSpan {
    /// First row.
    pub row_start: usize,
    /// Rows.
    pub rows: usize,
    /// Entry of the module's table.
    pub entry: usize,
    /// How to compute it.
    pub kernel: LoraKernel,
}

/// `LoraEntry` of `lora.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) a: Ptr,
    pub(crate) b: Ptr,
    pub(crate) rank: i32,
    pub(crate) scale: f32,
}

/// `LoraItem` of `lora.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Item {
    row: i32,
    rows: i32,
    entry: i32,
    rank_first: i32,
    hidden: i64,
}

/// `LoraArgs` of `lora.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct LoraArgs {
    x: Ptr,
    hidden: Ptr,
    entries: Ptr,
    items: Ptr,
    width: i32,
    unused: i32,
}

// SAFETY: four pointers and two 32-bit integers, as in `lora.cuh`.
unsafe impl Args for LoraArgs {}

/// Elements from run to run of `A` and of `B`.
pub(crate) fn padded(width: usize) -> usize {
    width.next_multiple_of(8)
}

/// The pieces of work of a step: four lists, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) items: Vec<Item>,
    shrink_rows: Range<usize>,
    shrink_tiles: Range<usize>,
    expand_rows: Range<usize>,
    expand_tiles: Range<usize>,
    /// Floats of all hidden states.
    pub(crate) hidden_len: usize,
    /// Rows up to the end of the last span.
    pub(crate) rows: usize,
    rank_max: usize,
}

impl Step {
    /// Cuts spans into pieces, for operands of type `element`. `ranks` has the rank of each entry, zero
    /// where there is none.
    ///
    /// # Errors
    /// Spans that overlap or are out of order, an entry that is not there, or too many rows.
    pub(crate) fn new(
        spans: &[LoraSpan],
        ranks: &[usize],
        element: ElementType,
    ) -> Result<Self, KernelError> {
        let (mut lists, mut hidden_len, mut rows, mut rank_max) =
            ([const { Vec::new() }; 4], 0, 0, 0);
        for span in spans {
            let rank = ranks.get(span.entry).copied().unwrap_or(0);
            if rank == 0 {
                let (value, bound) = (span.entry, ranks.len());
                return Err(KernelError::Bound { op: OP, what: "entry", value, bound });
            }
            if span.row_start < rows {
                let (value, bound) = (span.row_start, rows);
                return Err(KernelError::Bound { op: OP, what: "first row", value, bound });
            }
            rows = span.row_start.saturating_add(span.rows);
            narrow(OP, "last row", rows)?;
            let (first_list, height, ranks_each) = match (span.kernel, element) {
                (LoraKernel::Rows, _) | (_, ElementType::F32) => (0, 1, ROW_RANKS),
                (LoraKernel::Tiles, _) => (1, TILE_ROWS, TILE_RANKS),
            };
            for start in (0..span.rows).step_by(height) {
                let piece = |rank_first: usize| Item {
                    row: (span.row_start + start) as i32,
                    rows: height.min(span.rows - start) as i32,
                    entry: span.entry as i32,
                    rank_first: rank_first as i32,
                    hidden: (hidden_len + start * rank) as i64,
                };
                lists[first_list].extend((0..rank).step_by(ranks_each).map(piece));
                lists[first_list + 2].push(piece(0));
            }
            hidden_len += span.rows * rank;
            rank_max = rank_max.max(rank);
        }
        let mut ends = [0; 5];
        for (index, list) in lists.iter().enumerate() {
            ends[index + 1] = ends[index] + list.len();
        }
        Ok(Self {
            items: lists.concat(),
            shrink_rows: ends[0]..ends[1],
            shrink_tiles: ends[1]..ends[2],
            expand_rows: ends[2]..ends[3],
            expand_tiles: ends[3]..ends[4],
            hidden_len,
            rows,
            rank_max,
        })
    }
}

/// Memory that a launch works on: `x` is the input of shrink or the output of expand, `[rows, width]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) x: Ptr,
    /// `step.hidden_len` floats.
    pub(crate) hidden: Ptr,
    pub(crate) entries: Ptr,
    /// Copy of `step.items`.
    pub(crate) items: Ptr,
    pub(crate) width: usize,
    pub(crate) element: ElementType,
}

impl Memory {
    fn args(&self, op: &'static str, items: &Range<usize>) -> Result<LoraArgs, KernelError> {
        check_aligned(op, self.x, self.width)?;
        Ok(LoraArgs {
            x: self.x,
            hidden: self.hidden,
            entries: self.entries,
            items: self.items.offset(items.start * size_of::<Item>()),
            width: narrow(op, "width", self.width)?,
            unused: 0,
        })
    }
}

/// Launches shrink.
///
/// # Safety
/// As [`Queue::launch`]: `memory` must be of the sizes that `step` and the entries say.
pub(crate) unsafe fn shrink(
    queue: &impl Queue,
    step: &Step,
    memory: &Memory,
) -> Result<(), KernelError> {
    const OP: &str = "lora_shrink";
    let row_shared = SHRINK_ROW_THREADS as usize / 32 * ROW_RANKS * size_of::<f32>();
    let tile_shared = SHRINK_TILE_THREADS as usize / 32 * TILE_ROWS * TILE_RANKS * size_of::<f32>();
    let rows = (&step.shrink_rows, "row", SHRINK_ROW_THREADS, row_shared);
    let tiles = (&step.shrink_tiles, "tile", SHRINK_TILE_THREADS, tile_shared);
    for (items, shape, threads, shared) in [rows, tiles] {
        if let Some(grid) = Grid::new(OP, [items.len(), 1], threads, shared)? {
            let kernel = format!("lora_shrink_{shape}_{}", memory.element.suffix());
            // SAFETY: the caller's promise; the items of this range are those of this kernel.
            unsafe { queue.launch(&kernel, grid, &memory.args(OP, items)?)? };
        }
    }
    Ok(())
}

/// Launches expand.
///
/// # Safety
/// As [`shrink`].
pub(crate) unsafe fn expand(
    queue: &impl Queue,
    step: &Step,
    memory: &Memory,
) -> Result<(), KernelError> {
    const OP: &str = "lora_expand";
    let row_shared = padded(step.rank_max) * size_of::<f32>();
    let across = memory.width.div_ceil(EXPAND_OUTPUTS);
    for (items, shape, shared) in
        [(&step.expand_rows, "row", row_shared), (&step.expand_tiles, "tile", 0)]
    {
        // The second dimension of a grid is short: long lists go in parts.
        for first in items.clone().step_by(ITEMS_PER_LAUNCH) {
            let part = first..items.end.min(first + ITEMS_PER_LAUNCH);
            if let Some(grid) = Grid::new(OP, [across, part.len()], EXPAND_THREADS, shared)? {
                let kernel = format!("lora_expand_{shape}_{}", memory.element.suffix());
                // SAFETY: as in `shrink`.
                unsafe { queue.launch(&kernel, grid, &memory.args(OP, &part)?)? };
            }
        }
    }
    Ok(())
}
