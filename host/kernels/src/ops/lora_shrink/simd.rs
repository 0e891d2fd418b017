//! The vector body: a few rows against a few ranks at a time, for `A` is read from afar.

use super::Rows;
use crate::aligned::LANES;
use crate::elements::{Element, with_elements};
use crate::simd::{Vector, sum_lanes};

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn shrink<V: Vector>(x: &[f32], weight: &Rows<'_>, out: &mut [f32]) {
    // SAFETY: the caller has the instructions of `V`.
    with_elements!(weight.pair.a(), elements => unsafe {
        let a = weight.of(elements);
        let depth = weight.pair.in_features();
        let rank = weight.ranks.len();
        let (mut x, mut out) = (x, out);
        while !x.is_empty() {
            let rows = match x.len() / depth {
                4.. if V::REGISTERS == 32 => 4,
                2.. => 2,
                _ => 1,
            };
            let (these, others) = x.split_at(rows * depth);
            let (target, rest) = out.split_at_mut(rows * rank);
            match rows {
                4 => ranks::<V, _, 4>(these, a, target),
                2 => ranks::<V, _, 2>(these, a, target),
                _ => ranks::<V, _, 1>(these, a, target),
            }
            (x, out) = (others, rest);
        }
    });
}

/// All ranks of `M` rows.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn ranks<V: Vector, T: Element, const M: usize>(x: &[f32], a: &[T], out: &mut [f32]) {
    let count = out.len() / M;
    let mut rank = 0;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        while V::REGISTERS == 32 && M < 4 && count - rank >= 8 {
            tile::<V, T, M, 8>(x, a, rank, out);
            rank += 8;
        }
        while count - rank >= 4 {
            if V::REGISTERS == 32 || M == 1 {
                tile::<V, T, M, 4>(x, a, rank, out);
            } else {
                tile::<V, T, M, 2>(x, a, rank, out);
                tile::<V, T, M, 2>(x, a, rank + 2, out);
            }
            rank += 4;
        }
        while rank < count {
            tile::<V, T, M, 1>(x, a, rank, out);
            rank += 1;
        }
    }
}

/// `M` rows by `R` ranks.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn tile<V: Vector, T: Element, const M: usize, const R: usize>(
    x: &[f32],
    a: &[T],
    rank: usize,
    out: &mut [f32],
) {
    let (depth, count) = (x.len() / M, out.len() / M);
    let padded = depth.next_multiple_of(LANES);
    let a = &a[rank * padded..(rank + R) * padded];
    let whole = depth - depth % LANES;
    let mut last = [[0.0; LANES]; M];
    for (last, x) in last.iter_mut().zip(x.chunks_exact(depth)) {
        last[..depth - whole].copy_from_slice(&x[whole..]);
    }
    // SAFETY: the caller has the instructions; `a` holds `R` runs of `padded` numbers, `x` holds `M`
    // of `depth`, and `i + 16` is at most `padded`, or `depth` where `x` is read.
    unsafe {
        let mut sums = [[V::splat(0.0); R]; M];
        for i in (0..padded).step_by(LANES) {
            let mut few = [V::splat(0.0); M];
            for (m, few) in few.iter_mut().enumerate() {
                let source =
                    if i < whole { x.as_ptr().add(m * depth + i) } else { last[m].as_ptr() };
                *few = V::load(source);
            }
            for r in 0..R {
                let a = T::load::<V>(a.as_ptr().add(r * padded + i));
                for (few, sums) in few.iter().zip(&mut sums) {
                    sums[r] = few.mul_add(a, sums[r]);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (r, sum) in sums.iter().enumerate() {
                out[m * count + rank + r] = sum_lanes(sum.to_array());
            }
        }
    }
}
