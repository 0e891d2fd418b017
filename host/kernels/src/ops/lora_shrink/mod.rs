//! The first half of LoRA, `h = x Aᵀ`, for segments of rows that each have their own `A` and rank.
//!
//! The result is ragged: a segment of `n` rows and rank `r` has `n * r` floats, nothing is padded to
//! the largest rank, and rows without an adapter are in no segment.

#[cfg(feature = "cuda")]
pub mod cuda;
mod pair;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(any(feature = "cuda", test))]
pub mod step;
#[cfg(test)]
mod step_tests;

use std::ops::Range;

use candle_core::Tensor;

use super::PARALLEL_WORK_MIN;
use crate::KernelError;
use crate::aligned::LANES;
use crate::dispatch::{Level, level};
use crate::elements::Element;
use crate::pool::{Parts, Shares, Stage, for_tasks};
use crate::simd::vector_levels;
use crate::tensor::{Place, from_host, host_floats, place, rows};

pub(crate) use pair::check_segments;
pub use pair::{LoraPair, LoraSegment, PairCut};

const OP: &str = "lora_shrink";

/// Rows per task, where a segment has more than one.
const TASK_ROWS: usize = 16;
/// Ranks per task, where a segment has one row.
const TASK_RANKS: usize = 16;

vector_levels! {
    fn shrink(x: &[f32], weight: &Rows<'_>, out: &mut [f32])
}

/// Some ranks of the `A` of one segment.
struct Rows<'a> {
    pair: &'a LoraPair,
    ranks: Range<usize>,
}

impl Rows<'_> {
    /// The elements of these ranks, `[ranks][depth]`, each run padded to whole vectors.
    fn of<'a, T: Element>(&self, a: &'a [T]) -> &'a [T] {
        let padded = self.pair.in_features().next_multiple_of(LANES);
        &a[self.ranks.start * padded..self.ranks.end * padded]
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
        return crate::cuda::refuse(OP);
    }
    let source = host_floats(OP, "x", x)?;
    let mut hidden = [vec![0.0; len]];
    shrink_all(level(), source.as_slice()?, &[segments], &mut hidden);
    let [hidden] = hidden;
    from_host(hidden, len)
}

/// Floats of the hidden states of some segments.
pub(crate) fn floats(segments: &[LoraSegment<'_>]) -> usize {
    segments.iter().map(|segment| segment.rows * segment.pair.rank()).sum()
}

/// Some rows or ranks of one segment.
struct Task<'a> {
    /// `[rows][in_features]`
    x: &'a [f32],
    weight: Rows<'a>,
    /// Which list of segments it is of, and which floats of the result it writes.
    list: usize,
    out: Range<usize>,
}

/// The hidden states of several lists of segments over the same rows, all at once, `rows * rank` floats
/// per segment.
fn shrink_all(level: Level, x: &[f32], lists: &[&[LoraSegment<'_>]], hidden: &mut [Vec<f32>]) {
    let shrinks = Shrinks::new(level, x, lists, hidden);
    if shrinks.work <= PARALLEL_WORK_MIN {
        (0..shrinks.tasks()).for_each(|_| shrinks.run());
    } else {
        for_tasks(shrinks.tasks(), |_| shrinks.run());
    }
}

/// The first halves of several lists of segments over the same rows, as tasks.
pub(crate) struct Shrinks<'a> {
    level: Level,
    tasks: Vec<Task<'a>>,
    shares: Shares,
    /// Per list.
    hidden: Vec<Parts<'a, f32>>,
    work: usize,
    done: Stage,
}

impl<'a> Shrinks<'a> {
    /// Cuts the work into tasks. `hidden` has a buffer per list, of `rows * rank` floats per segment.
    ///
    /// # Panics
    /// If a buffer has another length.
    pub(crate) fn new(
        level: Level,
        x: &'a [f32],
        lists: &[&[LoraSegment<'a>]],
        hidden: &'a mut [Vec<f32>],
    ) -> Self {
        let (mut tasks, mut work) = (Vec::new(), 0);
        for (list, segments) in lists.iter().enumerate() {
            let mut len = 0;
            for segment in *segments {
                push_tasks(&mut tasks, x, segment, (list, len));
                len += segment.rows * segment.pair.rank();
                work += segment.rows * segment.pair.rank() * segment.pair.in_features();
            }
            assert_eq!(len, hidden[list].len());
        }
        let hidden = hidden.iter_mut().map(|floats| Parts::of(floats)).collect();
        let (shares, done) = (Shares::of(tasks.len()), Stage::of(tasks.len()));
        Self { level, tasks, shares, hidden, work, done }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Runs a task that has not run, one of this thread's share if there are some.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn run(&self) {
        let task = &self.tasks[self.shares.take().expect("called once per task")];
        self.done.run(|| {
            // SAFETY: the ranges of tasks of one list follow each other, and none is taken twice.
            let out = unsafe { self.hidden[task.list].part(task.out.clone()) };
            run(self.level, task.x, &task.weight, out);
        });
    }

    /// The hidden states of a list, as soon as they are there. Every task must have begun.
    pub(crate) fn hidden(&self, list: usize) -> &[f32] {
        self.done.wait();
        // SAFETY: all tasks are done, and none is taken twice, so nothing is written any more.
        unsafe { self.hidden[list].whole() }
    }
}

/// Cuts a segment whose hidden states begin at float `first` of list `list`.
fn push_tasks<'a>(
    tasks: &mut Vec<Task<'a>>,
    x: &'a [f32],
    segment: &LoraSegment<'a>,
    (list, first): (usize, usize),
) {
    let pair = segment.pair;
    let (depth, rank) = (pair.in_features(), pair.rank());
    let x = &x[segment.row_start * depth..(segment.row_start + segment.rows) * depth];
    if segment.rows == 1 {
        for start in (0..rank).step_by(TASK_RANKS) {
            let ranks = start..(start + TASK_RANKS).min(rank);
            let out = first + ranks.start..first + ranks.end;
            tasks.push(Task { x, weight: Rows { pair, ranks }, list, out });
        }
        return;
    }
    let mut first = first;
    for x in x.chunks(TASK_ROWS * depth) {
        let len = x.len() / depth * rank;
        let weight = Rows { pair, ranks: 0..rank };
        tasks.push(Task { x, weight, list, out: first..first + len });
        first += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};

    fn shrunk(level: Level, x: &[f32], lists: &[&[LoraSegment<'_>]]) -> Vec<Vec<f32>> {
        let mut hidden: Vec<Vec<f32>> = lists.iter().map(|list| vec![0.0; floats(list)]).collect();
        shrink_all(level, x, lists, &mut hidden);
        hidden
    }

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
            let lens = ranks.iter().zip(lengths).map(|(rank, rows)| rank * rows);
            let len = lens.sum::<usize>();
            let out = on_levels(|level| {
                let hidden = shrunk(level, &x, &[&segments, &segments[2..]]);
                let (first, second) = (&hidden[0], &hidden[1]);
                assert_same_bits(&first[len - second.len()..], second);
                first.clone()
            });
            let mut at = 0;
            for segment in &segments {
                for row in 0..segment.rows {
                    let rank = segment.pair.rank();
                    let x = &x[(segment.row_start + row) * depth..][..depth];
                    let alone = [LoraSegment { row_start: 0, rows: 1, pair: segment.pair }];
                    let found = shrunk(level(), x, &[&alone]);
                    assert_same_bits(&found[0], &out[at..at + rank]);
                    at += rank;
                }
            }
        }
    }

    #[test]
    fn is_the_product() {
        let mut random = Random::new(10);
        let a = random.floats(3 * 20);
        let pair = LoraPair::of_floats(&a, &random.floats(6), (3, 20, 2), 1.0);
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
        let pair = LoraPair::of_floats(&[1.0; 8], &[1.0; 6], (2, 4, 3), 1.0);
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
