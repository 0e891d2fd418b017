//! The first half of LoRA, `h = x Aᵀ`, for segments of rows that each have their own `A` and rank.
//!
//! The result is ragged: a segment of `n` rows and rank `r` has `n * r` floats, nothing is padded to
//! the largest rank, and rows without an adapter are in no segment.

mod pair;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;
use rayon::prelude::*;

use super::PARALLEL_WORK_MIN;
use crate::aligned::LANES;
use crate::dispatch::{Level, level};
use crate::simd::vector_levels;
use crate::tensor::{Place, from_host, host_floats, place, rows};
use crate::{KernelError, cuda};

pub(crate) use pair::check_segments;
pub use pair::{LoraPair, LoraSegment};

const OP: &str = "lora_shrink";

/// Rows per task.
const TASK_ROWS: usize = 16;

vector_levels! {
    fn shrink(x: &[f32], weight: &Rows<'_>, out: &mut [f32])
}

/// `A` of one segment.
struct Rows<'a> {
    /// `[rank][depth]`, each run padded to whole vectors.
    floats: &'a [f32],
    depth: usize,
    rank: usize,
}

impl Rows<'_> {
    fn padded(&self) -> usize {
        self.depth.next_multiple_of(LANES)
    }
}

/// `x Aᵀ` of each segment, one after another: `x` is `[rows, in_features]`, the result is flat, with
/// `rows * rank` floats per segment.
///
/// # Errors
/// Segments that overlap, are out of order or outside the rows, a pair of another width than `x`,
/// another type than f32, or a device this build can't use.
pub fn lora_shrink(x: &Tensor, segments: &[LoraSegment<'_>]) -> Result<Tensor, KernelError> {
    let width = x.dims().last().copied().unwrap_or(0);
    let found = rows(OP, "x", x, width)?;
    let len = check_segments(OP, segments, found, |pair| (pair.in_features(), width))?;
    if place(OP, x.device())? == Place::Cuda {
        return cuda::refuse(OP);
    }
    let source = host_floats(OP, "x", x)?;
    let mut out = vec![0.0; len];
    on_segments(level(), source.as_slice()?, segments, &mut out);
    from_host(out, len)
}

fn on_segments(level: Level, x: &[f32], segments: &[LoraSegment<'_>], out: &mut [f32]) {
    let mut tasks = Vec::new();
    let (mut rest, mut work) = (out, 0);
    for segment in segments {
        let (depth, rank) = (segment.pair.in_features(), segment.pair.rank());
        work += segment.rows * rank * depth;
        let (mut out, after) = rest.split_at_mut(segment.rows * rank);
        rest = after;
        let x = &x[segment.row_start * depth..(segment.row_start + segment.rows) * depth];
        for x in x.chunks(TASK_ROWS * depth) {
            let (part, after) = out.split_at_mut(x.len() / depth * rank);
            out = after;
            tasks.push((x, segment.pair, part));
        }
    }
    let task = |(x, pair, out): (&[f32], &LoraPair, &mut [f32])| {
        let (depth, rank) = (pair.in_features(), pair.rank());
        run(level, x, &Rows { floats: pair.a(), depth, rank }, out);
    };
    if work <= PARALLEL_WORK_MIN {
        tasks.into_iter().for_each(task);
    } else {
        tasks.into_par_iter().for_each(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};

    #[test]
    fn vectors_agree_with_scalar_and_a_row_is_alone() {
        let mut random = Random::new(9);
        for depth in [1, 15, 16, 64, 100, 259] {
            let ranks = [1, 4, 8, 64, 3, 17];
            let pairs: Vec<LoraPair> =
                ranks.iter().map(|rank| LoraPair::random(&mut random, depth, *rank, 5)).collect();
            let lengths = [1, 2, 5, 40, 3, 1];
            let mut segments = Vec::new();
            let mut row_start = 2;
            for (pair, rows) in pairs.iter().zip(lengths) {
                segments.push(LoraSegment { row_start, rows, pair });
                row_start += rows + rows % 2;
            }
            let x = random.floats(row_start * depth);
            let len = ranks.iter().zip(lengths).map(|(rank, rows)| rank * rows).sum();
            let out = on_levels(|level| {
                let mut out = vec![f32::NAN; len];
                on_segments(level, &x, &segments, &mut out);
                out
            });
            let mut at = 0;
            for segment in &segments {
                for row in 0..segment.rows {
                    let rank = segment.pair.rank();
                    let x = &x[(segment.row_start + row) * depth..][..depth];
                    let alone = [LoraSegment { row_start: 0, rows: 1, pair: segment.pair }];
                    let mut found = vec![0.0; rank];
                    on_segments(level(), x, &alone, &mut found);
                    assert_same_bits(&found, &out[at..at + rank]);
                    at += rank;
                }
            }
        }
    }

    #[test]
    fn is_the_product() {
        let mut random = Random::new(10);
        let a = random.floats(3 * 20);
        let pair = LoraPair::new(&a, &random.floats(6), (3, 20, 2), 1.0).unwrap();
        let x = from_host(random.floats(5 * 20), (5, 20)).unwrap();
        let segments = [LoraSegment { row_start: 1, rows: 3, pair: &pair }];
        let out = lora_shrink(&x, &segments).unwrap().reshape((3, 3)).unwrap();
        let a = from_host(a, (3, 20)).unwrap();
        let expected = x.narrow(0, 1, 3).unwrap().matmul(&a.t().unwrap()).unwrap();
        let error = (out - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn segments_that_lie_are_refused() {
        let pair = LoraPair::new(&[1.0; 8], &[1.0; 6], (2, 4, 3), 1.0).unwrap();
        let x = from_host(vec![0.0; 20], (5, 4)).unwrap();
        let check = |bounds: &[(usize, usize)]| {
            let segments: Vec<_> = bounds
                .iter()
                .map(|&(row_start, rows)| LoraSegment { row_start, rows, pair: &pair })
                .collect();
            lora_shrink(&x, &segments).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&[(0, 5)]));
        assert!(check(&[(0, 2), (3, 2)]));
        assert!(!check(&[(0, 6)]));
        assert!(!check(&[(0, 3), (2, 2)]), "overlap");
        assert!(!check(&[(3, 1), (0, 2)]), "out of order");
        assert!(!check(&[(usize::MAX, 2)]));
        let narrow = from_host(vec![0.0; 15], (5, 3)).unwrap();
        let segments = [LoraSegment { row_start: 0, rows: 5, pair: &pair }];
        assert!(lora_shrink(&narrow, &segments).is_err());
    }
}
