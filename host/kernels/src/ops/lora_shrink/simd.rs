//! The vector body: a few ranks at a time against one row.

use super::Rows;
use crate::aligned::LANES;
use crate::simd::{Vector, sum_lanes};

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn shrink<V: Vector>(x: &[f32], weight: &Rows<'_>, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.depth).zip(out.chunks_exact_mut(weight.rank)) {
        let mut rank = 0;
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            while weight.rank - rank >= 8 {
                ranks::<V, 8>(x, weight, rank, out);
                rank += 8;
            }
            if weight.rank - rank >= 4 {
                ranks::<V, 4>(x, weight, rank, out);
                rank += 4;
            }
            while rank < weight.rank {
                ranks::<V, 1>(x, weight, rank, out);
                rank += 1;
            }
        }
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn ranks<V: Vector, const R: usize>(
    x: &[f32],
    weight: &Rows<'_>,
    rank: usize,
    out: &mut [f32],
) {
    let padded = weight.padded();
    let a = &weight.floats[rank * padded..(rank + R) * padded];
    let whole = x.len() - x.len() % LANES;
    let mut last = [0.0; LANES];
    last[..x.len() - whole].copy_from_slice(&x[whole..]);
    assert_eq!(x.len(), weight.depth);
    // SAFETY: the caller has the instructions; `a` holds `R` runs of `padded` floats, and `i + 16`
    // is at most `padded`.
    unsafe {
        let mut sums = [V::splat(0.0); R];
        let mut add = |x: V, i: usize| {
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = x.mul_add(V::load(a.as_ptr().add(r * padded + i)), *sum);
            }
        };
        for i in (0..whole).step_by(LANES) {
            add(V::load(x.as_ptr().add(i)), i);
        }
        if whole < x.len() {
            add(V::load(last.as_ptr()), whole);
        }
        for (sum, out) in sums.iter().zip(&mut out[rank..rank + R]) {
            *out = sum_lanes(sum.to_array());
        }
    }
}
