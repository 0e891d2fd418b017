//! Causal attention of the rows of a step over their sequences' blocks: prefill chunks and single
//! tokens in one call, grouped queries, optionally a sliding window and a soft limit of the scores.
//!
//! A row is computed alone: scores over its positions in order, softmax, weighted values in order.
//! Where its blocks lie, and what else is in the step, changes no bit.

#[cfg(feature = "cuda")]
pub mod cuda;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod step;
#[cfg(test)]
mod step_tests;

use candle_core::Tensor;

use super::PARALLEL_WORK_MIN;
use super::softcap::check_cap;
use crate::dispatch::{Level, level};
use crate::pool::for_chunks;
use crate::simd::vector_levels;
use crate::tensor::{Place, exactly, from_host, host_floats, place};
use crate::{KernelError, KvBlocks, PagedPlan};

const OP: &str = "paged_attention";

/// Widths of heads that half-width kernels of devices are built for.
const DEVICE_DIMS: [usize; 5] = [64, 80, 96, 128, 256];
/// Widest head in f32.
const DEVICE_DIM_MAX: usize = 256;

/// Whether devices have a kernel for heads of this width, in floats or in halves.
#[must_use]
pub fn has_device_kernel(head_dim: usize, in_halves: bool) -> bool {
    match in_halves {
        true => DEVICE_DIMS.contains(&head_dim),
        false => head_dim <= DEVICE_DIM_MAX,
    }
}

vector_levels! {
    fn attend(job: &Job<'_>, scores: &mut Vec<f32>, out: &mut [f32])
}

/// What attention does, besides its operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads, a multiple of the key heads.
    pub heads: usize,
    /// Positions a row looks back to, itself included; `None` for all.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
    /// Soft limit of the scaled scores, above zero; `None` for none.
    pub softcap: Option<f32>,
}

/// The queries of one row that share one key head.
struct Job<'a> {
    /// `[queries][head_dim]`
    queries: &'a [f32],
    blocks: &'a KvBlocks,
    block_table: &'a [u32],
    kv_head: usize,
    /// Positions attended to, `first..end`.
    first: usize,
    end: usize,
    scale: f32,
    softcap: Option<f32>,
}

/// `softmax(scale * q Kᵀ) V` per row and head: `q` and the result are `[rows, heads * head_dim]`.
/// The rows' own keys and values must have been written before.
///
/// # Errors
/// Operands of other shapes or types, a plan made for other blocks, heads that are not whole
/// groups, an empty window, a soft limit that is none, or a device this build can't use.
pub fn paged_attention(
    q: &Tensor,
    blocks: &KvBlocks,
    plan: &PagedPlan,
    shape: &AttentionShape,
) -> Result<Tensor, KernelError> {
    let geometry = blocks.geometry();
    plan.check_geometry(OP, &geometry)?;
    if shape.heads == 0 || !shape.heads.is_multiple_of(geometry.kv_heads) {
        let (value, bound) = (shape.heads, geometry.kv_heads);
        return Err(KernelError::Bound { op: OP, what: "heads", value, bound });
    }
    if shape.window == Some(0) {
        return Err(KernelError::Size { op: OP, what: "empty window" });
    }
    if let Some(cap) = shape.softcap {
        check_cap(OP, cap)?;
    }
    let rows = plan.slots().len();
    exactly(OP, "q", q, &[rows, shape.heads * geometry.head_dim])?;
    if place(OP, q.device())? == Place::Cuda {
        let device = q.device().location();
        let blocks = blocks.on_device().ok_or(KernelError::Device { op: OP, device })?;
        return crate::on_device::paged_attention(q, blocks, plan, shape);
    }
    if blocks.on_device().is_some() {
        return Err(KernelError::Device { op: OP, device: q.device().location() });
    }
    let queries = host_floats(OP, "q", q)?;
    let mut out = vec![0.0; q.elem_count()];
    on_rows(level(), queries.as_slice()?, blocks, plan, (shape, &mut out));
    from_host(out, q.shape())
}

fn on_rows(
    level: Level,
    q: &[f32],
    blocks: &KvBlocks,
    plan: &PagedPlan,
    (shape, out): (&AttentionShape, &mut [f32]),
) {
    let geometry = blocks.geometry();
    let group = shape.heads / geometry.kv_heads * geometry.head_dim;
    let bounds = |row: usize| {
        let (block_table, position) = plan.row(row);
        let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        (block_table, first, position + 1)
    };
    let head = |scores: &mut Vec<f32>, index: usize, out: &mut [f32]| {
        let queries = &q[index * group..(index + 1) * group];
        let (row, kv_head) = (index / geometry.kv_heads, index % geometry.kv_heads);
        let (block_table, first, end) = bounds(row);
        let AttentionShape { scale, softcap, .. } = *shape;
        let job = Job { queries, blocks, block_table, kv_head, first, end, scale, softcap };
        run(level, &job, scores, out);
    };
    let positions: usize = (0..plan.slots().len()).map(|row| bounds(row).2 - bounds(row).1).sum();
    if positions * shape.heads * geometry.head_dim * 2 <= PARALLEL_WORK_MIN {
        let mut scores = Vec::new();
        let heads = out.chunks_exact_mut(group).enumerate();
        heads.for_each(|(index, out)| head(&mut scores, index, out));
    } else {
        // Tasks of long rows come apart, so that none is the last for long.
        for_chunks(out, group, |index, out| head(&mut Vec::new(), index, out));
    }
}

#[cfg(test)]
mod tests;
