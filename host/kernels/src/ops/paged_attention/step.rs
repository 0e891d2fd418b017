//! The attention work of a step on a device: pieces for warps, where parts of long contexts go, and the
//! launches over them.

use super::{DEVICE_DIM_MAX as F32_DIM_MAX, DEVICE_DIMS as DIMS};
use crate::launch::{Args, ElementType, Grid, Ptr, Queue, check_aligned, narrow};
use crate::{AttentionShape, KernelError, KvGeometry, PagedSpan};

const OP: &str = "paged_attention";
/// As `attention.cuh` has them.
const SPLIT: usize = 256;
const TILE: usize = 16;
const WARPS: usize = 4;
const THREADS: u32 = 128;
const F32_HEADS: usize = 4;
/// Most rows of a span whose splits are spread over the device; a longer one has rows enough.
const SPREAD_ROWS_MAX: usize = 8;
/// The second dimension of a launch.
const HEADS_MAX: usize = 65_535;

/// `AttentionSpan` of `attention.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Span {
    row_start: i32,
    rows: i32,
    context_len: i32,
    table: i32,
    split_first: i32,
    splits: i32,
    part_first: i32,
    unused: i32,
}

/// `AttentionItem` of `attention.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Item {
    span: i32,
    first: i32,
    split_first: i32,
    splits: i32,
}

/// `AttentionMerge` of `attention.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Merge {
    row: i32,
    part_first: i32,
    splits: i32,
}

/// `AttentionArgs` of `attention.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct AttentionArgs {
    q: Ptr,
    out: Ptr,
    keys: Ptr,
    values: Ptr,
    tables: Ptr,
    spans: Ptr,
    items: Ptr,
    merges: Ptr,
    parts: Ptr,
    part_sums: Ptr,
    item_count: i32,
    heads: i32,
    kv_heads: i32,
    dim: i32,
    block_tokens: i32,
    window: i32,
    scale: f32,
    softcap: f32,
}

// SAFETY: ten pointers and eight 32-bit numbers, as in `attention.cuh`.
unsafe impl Args for AttentionArgs {}

/// The work of a step. It depends on spans and window, so layers of one kind share it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) spans: Vec<Span>,
    pub(crate) tables: Vec<i32>,
    /// Pieces that leave parts, then pieces that finish rows.
    pub(crate) items: Vec<Item>,
    spread: usize,
    /// Whether a piece that finishes rows has more than one split.
    folds: bool,
    pub(crate) merges: Vec<Merge>,
    /// Parts of each head.
    pub(crate) parts: usize,
    pub(crate) rows: usize,
    heads: usize,
    window: Option<usize>,
    pub(crate) element: ElementType,
}

impl Step {
    /// Cuts the rows of spans, checked by [`crate::PagedPlan`] for `geometry`, into pieces.
    ///
    /// # Errors
    /// Sizes that kernels have no code for, or that do not fit their numbers.
    pub(crate) fn new(
        spans: &[PagedSpan],
        geometry: &KvGeometry,
        shape: &AttentionShape,
        element: ElementType,
    ) -> Result<Self, KernelError> {
        check(geometry, shape, element)?;
        let group = shape.heads / geometry.kv_heads;
        let mut step = Self {
            spans: Vec::new(),
            tables: Vec::new(),
            items: Vec::new(),
            spread: 0,
            folds: false,
            merges: Vec::new(),
            parts: 0,
            rows: 0,
            heads: shape.heads,
            window: shape.window,
            element,
        };
        let mut finishing = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            let context_len = narrow(OP, "context length", span.context_len)?;
            let first_row = span.context_len - span.rows;
            let lowest = shape.window.map_or(0, |w| (first_row + 1).saturating_sub(w));
            let split_first = lowest / SPLIT;
            let splits = (span.context_len - 1) / SPLIT + 1 - split_first;
            let spreads = splits > 1 && span.rows <= SPREAD_ROWS_MAX;
            let table = narrow(OP, "block tables", step.tables.len())?;
            step.tables.extend(span.block_table.iter().map(|block| *block as i32));
            step.spans.push(Span {
                row_start: narrow(OP, "rows", span.row_start)?,
                rows: span.rows as i32,
                context_len,
                table,
                split_first: split_first as i32,
                splits: splits as i32,
                part_first: if spreads { narrow(OP, "parts", step.parts)? } else { -1 },
                unused: 0,
            });
            let pieces = match element {
                ElementType::F32 => (0..span.rows).step_by(1),
                _ => (0..span.rows * group).step_by(TILE),
            };
            for first in pieces {
                let item = |split_first: usize, splits: usize| Item {
                    span: index as i32,
                    first: first as i32,
                    split_first: split_first as i32,
                    splits: splits as i32,
                };
                if spreads {
                    step.items.extend((0..splits).map(|split| item(split_first + split, 1)));
                } else {
                    finishing.push(item(split_first, splits));
                    step.folds |= splits > 1;
                }
            }
            if spreads {
                for row in 0..span.rows {
                    step.merges.push(Merge {
                        row: (span.row_start + row) as i32,
                        part_first: narrow(OP, "parts", step.parts)?,
                        splits: splits as i32,
                    });
                    step.parts += splits;
                }
            }
            step.rows = span.row_start + span.rows;
        }
        narrow(OP, "pairs of a row and a head", step.rows.saturating_mul(shape.heads))?;
        step.spread = step.items.len();
        step.items.extend(finishing);
        Ok(step)
    }
}

pub(crate) fn check(
    geometry: &KvGeometry,
    shape: &AttentionShape,
    element: ElementType,
) -> Result<(), KernelError> {
    let bound = |what, value, bound| Err(KernelError::Bound { op: OP, what, value, bound });
    if shape.heads == 0 || !shape.heads.is_multiple_of(geometry.kv_heads) {
        return bound("heads", shape.heads, geometry.kv_heads);
    }
    if shape.heads > HEADS_MAX {
        return bound("heads", shape.heads, HEADS_MAX);
    }
    if shape.window == Some(0) {
        return Err(KernelError::Size { op: OP, what: "empty window" });
    }
    match element {
        ElementType::F32 if geometry.head_dim > F32_DIM_MAX => {
            bound("head_dim", geometry.head_dim, F32_DIM_MAX)
        }
        ElementType::F32 => Ok(()),
        _ if !DIMS.contains(&geometry.head_dim) => Err(KernelError::Size {
            op: OP,
            what: "head_dim, which must be 64, 80, 96, 128 or 256",
        }),
        _ if !geometry.block_tokens.is_multiple_of(16) => {
            Err(KernelError::Size { op: OP, what: "block_tokens, which must be whole sixteens" })
        }
        _ => Ok(()),
    }
}

/// Memory that a launch works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// `[rows][heads][head_dim]`, as `out`.
    pub(crate) q: Ptr,
    pub(crate) out: Ptr,
    /// `[block][kv_head][token][head_dim]`
    pub(crate) keys: Ptr,
    /// `[block][kv_head][head_dim][token]`
    pub(crate) values: Ptr,
    /// Copies of the step's lists.
    pub(crate) tables: Ptr,
    pub(crate) spans: Ptr,
    pub(crate) items: Ptr,
    pub(crate) merges: Ptr,
    /// `step.parts * heads * head_dim` floats.
    pub(crate) parts: Ptr,
    /// `step.parts * heads * 2` floats.
    pub(crate) part_sums: Ptr,
}

/// Launches attention.
///
/// # Safety
/// As [`Queue::launch`]: `memory` must be of the sizes that `step` and `geometry` say, and hold what the
/// step's spans look at.
pub(crate) unsafe fn attend(
    queue: &impl Queue,
    step: &Step,
    geometry: &KvGeometry,
    (scale, softcap): (f32, Option<f32>),
    memory: &Memory,
) -> Result<(), KernelError> {
    for pointer in [memory.q, memory.out, memory.keys, memory.values] {
        check_aligned(OP, pointer, 8)?;
    }
    let dim = geometry.head_dim;
    let args = |first: usize, item_count: usize| AttentionArgs {
        q: memory.q,
        out: memory.out,
        keys: memory.keys,
        values: memory.values,
        tables: memory.tables,
        spans: memory.spans,
        items: memory.items.offset(first * size_of::<Item>()),
        merges: memory.merges,
        parts: memory.parts,
        part_sums: memory.part_sums,
        item_count: item_count as i32,
        heads: step.heads as i32,
        kv_heads: geometry.kv_heads as i32,
        dim: dim as i32,
        block_tokens: geometry.block_tokens as i32,
        window: step.window.map_or(0, |window| i32::try_from(window).unwrap_or(0)),
        scale,
        softcap: softcap.unwrap_or(0.0),
    };
    let suffix = step.element.suffix();
    for (first, end, folds) in
        [(0, step.spread, false), (step.spread, step.items.len(), step.folds)]
    {
        let count = end - first;
        let (kernel, blocks, shared) = match step.element {
            ElementType::F32 => {
                let floats = F32_HEADS * (dim + SPLIT) + THREADS as usize / 32;
                ("paged_attention_f32".to_owned(), count, floats * size_of::<f32>())
            }
            _ => {
                let kept = if folds { dim / 2 * THREADS as usize * size_of::<f32>() } else { 0 };
                (format!("paged_attention_{suffix}_{dim}"), count.div_ceil(WARPS), kept)
            }
        };
        if let Some(grid) = Grid::new(OP, [blocks, geometry.kv_heads], THREADS, shared)? {
            // SAFETY: the caller's promise; the items of this range are as this kernel expects.
            unsafe { queue.launch(&kernel, grid, &args(first, count))? };
        }
    }
    if let Some(grid) = Grid::new(OP, [step.merges.len(), step.heads], THREADS, 0)? {
        // SAFETY: as above; the kernels before wrote every part of a merge.
        unsafe { queue.launch(&format!("attention_merge_{suffix}"), grid, &args(0, 0))? };
    }
    Ok(())
}
