//! The vector body: scores of sixteen positions at a time for a few queries that share keys, then
//! sixteen outputs at a time for the same queries.

use super::Job;
use crate::aligned::LANES;
use crate::elements::{Bf16, Element};
use crate::ops::kv_write::{Kept, Pages, ReadPages};
use crate::prefetch::{LINE_BYTES, prefetch};
use crate::simd::math::{exp_vector, softcap_vector};
use crate::simd::{Vector, max_lanes, sum_lanes};

/// Vectors of values held for each query.
const VALUE_VECTORS: usize = 4;
/// How far ahead of what is read memory is asked for.
const POSITIONS_AHEAD: usize = 64;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn attend<V: Vector>(job: &Job<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    let vector = std::marker::PhantomData::<V>;
    job.blocks.read(Attend { job, scores, out, vector });
}

/// Made by [`attend`] alone, whose caller has the instructions of `V`.
struct Attend<'a, V> {
    job: &'a Job<'a>,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
    vector: std::marker::PhantomData<V>,
}

impl<V: Vector> ReadPages for Attend<'_, V> {
    #[inline(always)]
    fn read<T: Kept>(self, pages: Pages<'_, T>) {
        // SAFETY: whoever made `self` has the instructions of `V`.
        unsafe { attend_in::<V, T>(&InPages { job: self.job, pages }, self.scores, self.out) }
    }
}

/// A job, and what it reads.
struct InPages<'a, T> {
    job: &'a Job<'a>,
    pages: Pages<'a, T>,
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn attend_in<V: Vector, T: Kept>(
    job: &InPages<'_, T>,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let dim = job.job.blocks.geometry().head_dim;
    let queries = job.job.queries.len() / dim;
    let mut query = 0;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        if V::REGISTERS == 32 {
            while queries - query >= 4 {
                queries_by::<V, T, 4>(job, query, scores, out);
                query += 4;
            }
            if queries - query == 3 {
                queries_by::<V, T, 3>(job, query, scores, out);
                query += 3;
            }
        }
        while queries - query >= 2 {
            queries_by::<V, T, 2>(job, query, scores, out);
            query += 2;
        }
        while query < queries {
            queries_by::<V, T, 1>(job, query, scores, out);
            query += 1;
        }
    }
}

/// Queries `query..query + Q`.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn queries_by<V: Vector, T: Kept, const Q: usize>(
    in_pages: &InPages<'_, T>,
    query: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let job = in_pages.job;
    let dim = job.blocks.geometry().head_dim;
    let stride = (job.end - job.first).next_multiple_of(LANES);
    if scores.len() < Q * stride {
        scores.resize(Q * stride, 0.0);
    }
    let scores = &mut scores[..Q * stride];
    let queries = &job.queries[query * dim..(query + Q) * dim];
    let out = &mut out[query * dim..(query + Q) * dim];
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        score::<V, T, Q>(in_pages, queries, scores, stride);
        if let Some(cap) = job.softcap {
            // What lies behind the scores is overwritten by the softmax.
            for chunk in scores.chunks_exact_mut(LANES) {
                softcap_vector(V::load(chunk.as_ptr()), V::splat(cap)).store(chunk.as_mut_ptr());
            }
        }
        let mut totals = [0.0; Q];
        for (total, scores) in totals.iter_mut().zip(scores.chunks_exact_mut(stride)) {
            *total = softmax::<V>(scores, job.end - job.first);
            if T::SCALED {
                scale_weights(in_pages, scores);
            }
        }
        let padded = job.blocks.geometry().padded_dim();
        let vectors = if V::REGISTERS == 32 { VALUE_VECTORS } else { VALUE_VECTORS / 2 };
        let mut d = 0;
        while d + vectors * LANES <= padded {
            if V::REGISTERS == 32 {
                weigh::<V, T, Q, VALUE_VECTORS>(in_pages, (scores, stride), &totals, (out, d));
            } else {
                weigh::<V, T, Q, { VALUE_VECTORS / 2 }>(
                    in_pages,
                    (scores, stride),
                    &totals,
                    (out, d),
                );
            }
            d += vectors * LANES;
        }
        while d < padded {
            weigh::<V, T, Q, 1>(in_pages, (scores, stride), &totals, (out, d));
            d += LANES;
        }
    }
}

/// Scaled scores of positions `first..end`, `[Q][stride]`.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn score<V: Vector, T: Kept, const Q: usize>(
    in_pages: &InPages<'_, T>,
    queries: &[f32],
    scores: &mut [f32],
    stride: usize,
) {
    let job = in_pages.job;
    let geometry = job.blocks.geometry();
    let (tokens, block_tokens) = (geometry.padded_tokens(), geometry.block_tokens);
    let panel = |position: usize| {
        let (index, offset) = (position / block_tokens, position % block_tokens);
        let keys = in_pages.pages.keys_of(job.block_table[index] as usize, job.kv_head);
        let start = offset / LANES * LANES;
        let scales = if T::SCALED {
            let scales = in_pages.pages.key_scales_of(job.block_table[index] as usize, job.kv_head);
            &scales[start..start + LANES]
        } else {
            &[]
        };
        Panel { keys, tokens, start, scales }
    };
    let whole = block_tokens.is_multiple_of(LANES);
    let mut position = job.first;
    while position < job.end {
        let skip = position % block_tokens % LANES;
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            // Two panels at a time keep the multipliers busy; a sum is the same in either case.
            if whole && skip == 0 && position + 2 * LANES <= job.end {
                let panels = [panel(position), panel(position + LANES)];
                let sums = dot::<V, T, Q, 2>(&panels, (queries, later(in_pages, position)));
                for (q, sums) in sums.iter().enumerate() {
                    let start = q * stride + position - job.first;
                    let target = &mut scores[start..start + 2 * LANES];
                    sums[0].mul(V::splat(job.scale)).store(target.as_mut_ptr());
                    sums[1].mul(V::splat(job.scale)).store(target[LANES..].as_mut_ptr());
                }
                position += 2 * LANES;
                continue;
            }
            let left = block_tokens - position % block_tokens;
            let wanted = (LANES - skip).min(left).min(job.end - position);
            let sums = dot::<V, T, Q, 1>(&[panel(position)], (queries, Later::none()));
            for (q, sums) in sums.iter().enumerate() {
                let start = q * stride + position - job.first;
                let lanes = sums[0].mul(V::splat(job.scale)).to_array();
                scores[start..start + wanted].copy_from_slice(&lanes[skip..skip + wanted]);
            }
            position += wanted;
        }
    }
}

/// Memory that is read soon after 32 positions of keys, as long as they.
#[derive(Clone, Copy)]
struct Later {
    /// Where every other line begins.
    first: [*const u8; 2],
    stride: usize,
}

impl Later {
    fn none() -> Self {
        Self { first: [std::ptr::null(); 2], stride: 0 }
    }

    /// The line to ask for at element `d` of the keys.
    #[inline(always)]
    fn line(&self, d: usize) -> *const u8 {
        self.first[d % 2].wrapping_add(d / 2 * self.stride)
    }
}

/// What to ask for while the keys from `position` on are read: keys further on, or after the last of them
/// the first values. A block ends before the processor has seen which way its lines go.
#[inline(always)]
fn later<T: Kept>(in_pages: &InPages<'_, T>, position: usize) -> Later {
    let job = in_pages.job;
    let geometry = job.blocks.geometry();
    let (tokens, block_tokens) = (geometry.padded_tokens(), geometry.block_tokens);
    let position = position + POSITIONS_AHEAD;
    let keys = |position: usize| {
        let block = job.block_table[position / block_tokens] as usize;
        let start = position % block_tokens / LANES * LANES;
        in_pages.pages.keys_of(block, job.kv_head)[start..].as_ptr().cast::<u8>()
    };
    let values = |position: usize| {
        let block = job.block_table[position / block_tokens] as usize;
        let start = position % block_tokens * geometry.padded_dim();
        in_pages.pages.values_of(block, job.kv_head)[start..].as_ptr().cast::<u8>()
    };
    let element = size_of::<T>();
    if position < job.end {
        let first = keys(position);
        let stride = 2 * tokens * element;
        match tokens == LANES && position + LANES < job.end {
            true => Later { first: [first, keys(position + LANES)], stride },
            false => Later { first: [first, first.wrapping_add(tokens * element)], stride },
        }
    } else {
        let position = job.first + (position - job.end);
        if position + LANES >= job.end {
            return Later::none();
        }
        let first = values(position);
        match block_tokens == LANES {
            true => Later { first: [first, values(position + LANES)], stride: LINE_BYTES },
            false => {
                Later { first: [first, first.wrapping_add(LINE_BYTES)], stride: 2 * LINE_BYTES }
            }
        }
    }
}

/// The keys of sixteen positions of one block and head.
struct Panel<'a, T> {
    /// `[head_dim][tokens]`
    keys: &'a [T],
    tokens: usize,
    /// First of the sixteen.
    start: usize,
    /// Their scales, where they have some.
    scales: &'a [Bf16],
}

/// Products of `Q` queries with the keys of `P` panels.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn dot<V: Vector, T: Kept, const Q: usize, const P: usize>(
    panels: &[Panel<'_, T>; P],
    (queries, later): (&[f32], Later),
) -> [[V; P]; Q] {
    let dim = queries.len() / Q;
    for panel in panels {
        assert!(panel.keys.len() == dim * panel.tokens && panel.start + LANES <= panel.tokens);
        assert!(!T::SCALED || panel.scales.len() == LANES);
    }
    // SAFETY: the caller has the instructions; a panel has sixteen numbers in each of its `dim` runs, and
    // sixteen scales where numbers have some,
    // and `queries` holds `Q * dim` floats.
    unsafe {
        let mut sums = [[V::splat(0.0); P]; Q];
        for d in 0..dim {
            if P == 2 {
                prefetch(later.line(d));
            }
            let mut keys = [V::splat(0.0); P];
            for (key, panel) in keys.iter_mut().zip(panels) {
                *key = T::load(panel.keys.as_ptr().add(d * panel.tokens + panel.start));
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                let query = V::splat(*queries.get_unchecked(q * dim + d));
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = query.mul_add(key, *sum);
                }
            }
        }
        if T::SCALED {
            for (p, panel) in panels.iter().enumerate() {
                let scales: V = Bf16::load(panel.scales.as_ptr());
                for sums in &mut sums {
                    sums[p] = sums[p].mul(scales);
                }
            }
        }
        sums
    }
}

/// Turns `len` scores into weights and returns their sum.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn softmax<V: Vector>(scores: &mut [f32], len: usize) -> f32 {
    let padded = len.next_multiple_of(LANES);
    scores[len..padded].fill(f32::NEG_INFINITY);
    let scores = &mut scores[..padded];
    // SAFETY: the caller has the instructions; `scores` is whole vectors.
    unsafe {
        let mut largest = V::splat(f32::NEG_INFINITY);
        for chunk in scores.chunks_exact(LANES) {
            largest = largest.max(V::load(chunk.as_ptr()));
        }
        let largest = V::splat(max_lanes(largest.to_array()));
        for chunk in scores.chunks_exact_mut(LANES) {
            exp_vector(V::load(chunk.as_ptr()).sub(largest)).store(chunk.as_mut_ptr());
        }
        scores[len..].fill(0.0);
        let mut sums = V::splat(0.0);
        for chunk in scores.chunks_exact(LANES) {
            sums = sums.add(V::load(chunk.as_ptr()));
        }
        sum_lanes(sums.to_array())
    }
}

/// Multiplies the weights of positions `first..end` by the scales of their values.
#[inline(always)]
fn scale_weights<T: Kept>(in_pages: &InPages<'_, T>, weights: &mut [f32]) {
    let job = in_pages.job;
    let block_tokens = job.blocks.geometry().block_tokens;
    let mut position = job.first;
    while position < job.end {
        let (index, offset) = (position / block_tokens, position % block_tokens);
        let count = (block_tokens - offset).min(job.end - position);
        let scales = in_pages.pages.value_scales_of(job.block_table[index] as usize, job.kv_head);
        let weights = &mut weights[position - job.first..][..count];
        for (weight, scale) in weights.iter_mut().zip(&scales[offset..]) {
            *weight *= scale.widen();
        }
        position += count;
    }
}

/// Outputs `d..d + N * 16` of `Q` queries.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn weigh<V: Vector, T: Kept, const Q: usize, const N: usize>(
    in_pages: &InPages<'_, T>,
    (scores, stride): (&[f32], usize),
    totals: &[f32; Q],
    (out, d): (&mut [f32], usize),
) {
    let job = in_pages.job;
    let geometry = job.blocks.geometry();
    let (dim, padded, block_tokens) =
        (geometry.head_dim, geometry.padded_dim(), geometry.block_tokens);
    assert!(d + N * LANES <= padded && job.end - job.first <= stride);
    assert!(scores.len() == Q * stride);
    // SAFETY: the caller has the instructions; `values` holds `block_tokens` runs of `padded`
    // floats of which `d..d + N * 16` is inside each, `scores` holds a float per query and position.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; Q];
        let mut position = job.first;
        while position < job.end {
            let (index, offset) = (position / block_tokens, position % block_tokens);
            let values = in_pages.pages.values_of(job.block_table[index] as usize, job.kv_head);
            assert!(values.len() == block_tokens * padded);
            let count = (block_tokens - offset).min(job.end - position);
            let later = (position + POSITIONS_AHEAD).min(job.end - 1) / block_tokens;
            let later = in_pages.pages.values_of(job.block_table[later] as usize, job.kv_head);
            for i in 0..count {
                let source = values.as_ptr().add((offset + i) * padded + d);
                let later = later.as_ptr().wrapping_add((offset + i) * padded + d).cast::<u8>();
                for line in 0..(N * LANES * size_of::<T>()).div_ceil(LINE_BYTES) {
                    prefetch(later.wrapping_add(line * LINE_BYTES));
                }
                let mut value = [V::splat(0.0); N];
                for (n, value) in value.iter_mut().enumerate() {
                    *value = T::load(source.add(n * LANES));
                }
                for (q, sums) in sums.iter_mut().enumerate() {
                    let score = q * stride + position - job.first + i;
                    let weight = V::splat(*scores.get_unchecked(score));
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum = weight.mul_add(value, *sum);
                    }
                }
            }
            position += count;
        }
        for (q, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let start = d + n * LANES;
                let lanes = sum.div(V::splat(totals[q])).to_array();
                let len = LANES.min(dim.saturating_sub(start));
                out[q * dim + start..][..len].copy_from_slice(&lanes[..len]);
            }
        }
    }
}
