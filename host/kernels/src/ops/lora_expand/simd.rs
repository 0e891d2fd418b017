//! The vector body: a few rows against a few panels of sixteen outputs at a time.

use super::{Columns, Part};
use crate::aligned::LANES;
use crate::elements::{Element, with_elements};
use crate::simd::Vector;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn expand<V: Vector>(hidden: &[f32], weight: &Part<'_>, out: &mut Columns<'_>) {
    // SAFETY: the caller has the instructions of `V`.
    with_elements!(weight.pair.b(), elements => unsafe {
        rows::<V, _>(hidden, (weight, elements), out);
    });
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn rows<V: Vector, T: Element>(
    hidden: &[f32],
    weight: (&Part<'_>, &[T]),
    out: &mut Columns<'_>,
) {
    let rank = weight.0.pair.rank();
    let count = hidden.len() / rank;
    let mut row = 0;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        while count - row >= 4 {
            panels::<V, T, 4, 4>(&hidden[row * rank..(row + 4) * rank], weight, row, out);
            row += 4;
        }
        while row < count {
            panels::<V, T, 1, 8>(&hidden[row * rank..(row + 1) * rank], weight, row, out);
            row += 1;
        }
    }
}

/// All panels of `M` rows from `row` on, `N` at a time.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn panels<V: Vector, T: Element, const M: usize, const N: usize>(
    hidden: &[f32],
    weight: (&Part<'_>, &[T]),
    row: usize,
    out: &mut Columns<'_>,
) {
    let mut panel = 0;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        while out.panels() - panel >= N {
            tile::<V, T, M, N>(hidden, weight, (row, panel), out);
            panel += N;
        }
        while panel < out.panels() {
            tile::<V, T, M, 1>(hidden, weight, (row, panel), out);
            panel += 1;
        }
    }
}

/// `M` rows by `N` panels.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn tile<V: Vector, T: Element, const M: usize, const N: usize>(
    hidden: &[f32],
    (weight, b): (&Part<'_>, &[T]),
    (row, panel): (usize, usize),
    out: &mut Columns<'_>,
) {
    let rank = hidden.len() / M;
    let b = &b[(weight.panel + panel) * LANES * rank..(weight.panel + panel + N) * LANES * rank];
    // SAFETY: the caller has the instructions; `b` holds `N * rank * 16` numbers, `hidden` holds
    // `M * rank` floats; `add` checks its own slice.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        for i in 0..rank {
            let mut few = [V::splat(0.0); N];
            for (n, few) in few.iter_mut().enumerate() {
                *few = T::load::<V>(b.as_ptr().add((n * rank + i) * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let h = V::splat(*hidden.get_unchecked(m * rank + i));
                for (sum, few) in sums.iter_mut().zip(few) {
                    *sum = h.mul_add(few, *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let y = out.lanes(weight.row + row + m, panel + n);
                add(*sum, weight.pair.scale(), y);
            }
        }
    }
}

/// `y += scale * sums`
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn add<V: Vector>(sums: V, scale: f32, y: &mut [f32]) {
    // SAFETY: the caller has the instructions; sixteen floats lie behind every pointer.
    unsafe {
        if y.len() == LANES {
            sums.mul_add(V::splat(scale), V::load(y.as_ptr())).store(y.as_mut_ptr());
        } else {
            let mut padded = [0.0; LANES];
            padded[..y.len()].copy_from_slice(y);
            let added = sums.mul_add(V::splat(scale), V::load(padded.as_ptr())).to_array();
            y.copy_from_slice(&added[..y.len()]);
        }
    }
}
