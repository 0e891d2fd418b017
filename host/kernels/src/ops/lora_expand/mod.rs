//! The second half of LoRA, `y += scale * h Bᵀ`, for segments of rows that each have their own `B`,
//! rank and scale. Rows in no segment are not touched.

#[cfg(feature = "cuda")]
pub mod cuda;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use crate::dispatch::{Level, level};
use crate::ops::columns::{Columns, Output, Tile, for_tiles};
use crate::ops::lora_shrink::check_segments;
use crate::prefetch::Span;
use crate::simd::vector_levels;
use crate::tensor::{Place, exactly, floats_mut, host_floats, place, rows};
use crate::{KernelError, LoraPair, LoraSegment};

const OP: &str = "lora_expand";

vector_levels! {
    fn expand(hidden: &[f32], weight: &Part<'_>, out: &mut Columns<'_>)
}

/// The panels of one `B` that are those of a tile, and its rows in the tile.
struct Part<'a> {
    pair: &'a LoraPair,
    /// Panel of `B` that is the tile's first.
    panel: usize,
    /// Row of the tile that the hidden states begin with.
    row: usize,
}

/// Adds `scale * h Bᵀ` of each segment to its rows of `y`, in place. `y` is `[rows, out_features]`,
/// `hidden` is what [`crate::lora_shrink`] gave for the same segments.
///
/// # Errors
/// Segments that overlap, are out of order or outside the rows, a pair of another width than `y`,
/// hidden states of other segments, another type than f32, or a device this build can't use.
pub fn lora_expand(
    y: Tensor,
    hidden: &Tensor,
    segments: &[LoraSegment<'_>],
) -> Result<Tensor, KernelError> {
    let width = y.dims().last().copied().unwrap_or(0);
    let found = rows(OP, "y", &y, width)?;
    let len = check_segments(OP, segments, found, |pair| (pair.out_features(), width))?;
    exactly(OP, "hidden", hidden, &[len])?;
    if place(OP, y.device())? == Place::Cuda {
        return crate::cuda::refuse(OP);
    }
    {
        let hidden = host_floats(OP, "hidden", hidden)?;
        y.inplace_op1(&Expand { hidden: hidden.as_slice()?, segments })?;
    }
    Ok(y)
}

struct Expand<'a> {
    hidden: &'a [f32],
    segments: &'a [LoraSegment<'a>],
}

impl InplaceOp1 for Expand<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        on_segments(level(), self.hidden, self.segments, floats_mut(OP, storage, layout)?);
        Ok(())
    }
}

fn on_segments(level: Level, hidden: &[f32], segments: &[LoraSegment<'_>], y: &mut [f32]) {
    let Some(last) = segments.last() else { return };
    let width = last.pair.out_features();
    let rows = y.len() / width;
    let ranks = segments.iter().map(|segment| segment.rows * segment.pair.rank()).sum::<usize>();
    let mut outputs = [Output { floats: y, width }];
    for_tiles(&mut outputs, rows, ranks.div_ceil(rows.max(1)), |_, tile, columns| {
        expand_tile(level, hidden, segments, tile, columns);
    });
}

/// What [`expand_tile`] will read of the segments' weights.
pub(crate) fn spans_of_tile(
    segments: &[LoraSegment<'_>],
    tile: Tile,
) -> impl Iterator<Item = Span> + Clone {
    let inside = segments.iter().filter(move |segment| {
        let end = segment.row_start + segment.rows;
        segment.row_start < tile.row + tile.rows && end > tile.row
    });
    inside.map(move |segment| segment.pair.b_span(tile.panel..tile.panel + tile.panels))
}

/// Adds to the rows and columns of a tile what the segments have for them.
pub(crate) fn expand_tile(
    level: Level,
    hidden: &[f32],
    segments: &[LoraSegment<'_>],
    tile: Tile,
    out: &mut Columns<'_>,
) {
    let mut hidden = hidden;
    for segment in segments {
        let (pair, rank) = (segment.pair, segment.pair.rank());
        let (states, later) = hidden.split_at(segment.rows * rank);
        hidden = later;
        let first = segment.row_start.max(tile.row);
        let end = (segment.row_start + segment.rows).min(tile.row + tile.rows);
        if first < end {
            let (from, to) = (first - segment.row_start, end - segment.row_start);
            let part = Part { pair, panel: tile.panel, row: first - tile.row };
            run(level, &states[from * rank..to * rank], &part, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};
    use crate::tensor::from_host;

    #[test]
    fn vectors_agree_with_scalar_and_rows_without_adapter_stay() {
        let mut random = Random::new(11);
        for width in [1, 15, 16, 64, 100, 259] {
            let ranks = [1, 4, 8, 64, 3];
            let pairs: Vec<LoraPair> =
                ranks.iter().map(|rank| LoraPair::random(&mut random, 7, *rank, width)).collect();
            let lengths = [1, 2, 5, 40, 3];
            let mut segments = Vec::new();
            let mut row_start = 2;
            for (pair, rows) in pairs.iter().zip(lengths) {
                segments.push(LoraSegment { row_start, rows, pair });
                row_start += rows + 1;
            }
            let y = random.floats(row_start * width);
            let len = ranks.iter().zip(lengths).map(|(rank, rows)| rank * rows).sum();
            let hidden = random.floats(len);
            let out = on_levels(|level| {
                let mut y = y.clone();
                on_segments(level, &hidden, &segments, &mut y);
                y
            });
            assert_same_bits(&out[..2 * width], &y[..2 * width]);
            let (mut at, mut last) = (0, 0);
            for segment in &segments {
                let rank = segment.pair.rank();
                for row in segment.row_start..segment.row_start + segment.rows {
                    let alone = [LoraSegment { row_start: 0, rows: 1, pair: segment.pair }];
                    let mut found = y[row * width..(row + 1) * width].to_vec();
                    on_segments(level(), &hidden[at..at + rank], &alone, &mut found);
                    assert_same_bits(&found, &out[row * width..(row + 1) * width]);
                    at += rank;
                    last = row + 1;
                }
                let gap = last * width..(last + 1) * width;
                assert_same_bits(&out[gap.clone()], &y[gap]);
            }
        }
    }

    #[test]
    fn is_the_scaled_product() {
        let mut random = Random::new(12);
        let b = random.floats(20 * 3);
        let pair = LoraPair::of_floats(&random.floats(6), &b, (3, 2, 20), 0.25);
        let y = random.floats(4 * 20);
        let hidden = from_host(random.floats(2 * 3), 6).unwrap();
        let segments = [LoraSegment { row_start: 1, rows: 2, pair: &pair }];
        let before = from_host(y.clone(), (4, 20)).unwrap();
        let out = lora_expand(from_host(y, (4, 20)).unwrap(), &hidden, &segments).unwrap();
        let b = from_host(b, (20, 3)).unwrap();
        let product = hidden.reshape((2, 3)).unwrap().matmul(&b.t().unwrap()).unwrap();
        let expected = ((product * 0.25).unwrap() + before.narrow(0, 1, 2).unwrap()).unwrap();
        let error = (out.narrow(0, 1, 2).unwrap() - expected).unwrap().abs().unwrap();
        assert!(error.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        assert!(lora_expand(before, &hidden.narrow(0, 0, 5).unwrap(), &segments).is_err());
    }
}
