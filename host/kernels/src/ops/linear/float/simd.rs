//! The vector body: tiles of rows by panels in registers, inputs in blocks that stay in the first
//! cache. Between blocks the sums wait in the output, which changes no bit.

use super::{Columns, Element, Panels, with_elements};
use crate::aligned::LANES;
use crate::simd::Vector;

/// Inputs per block where many rows share the weights: two panels of it are 32 KiB.
const DEPTH_BLOCK: usize = 256;
/// Rows up to which a block saves nothing: the weights are read once anyway.
const ROWS_UNBLOCKED: usize = 8;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn gemm<V: Vector>(x: &[f32], weight: &Panels<'_>, out: &mut Columns<'_>) {
    // SAFETY: the caller has the instructions of `V`.
    with_elements!(weight.held, elements => unsafe {
        let weight = Weights { elements: weight.of(elements), bias: weight.bias, depth: weight.depth };
        product::<V, _>(x, &weight, out);
    });
}

/// The panels of a task, their elements of one type.
struct Weights<'a, T> {
    /// `[panels][depth][16]`
    elements: &'a [T],
    bias: &'a [f32],
    depth: usize,
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn product<V: Vector, T: Element>(
    x: &[f32],
    weight: &Weights<'_, T>,
    out: &mut Columns<'_>,
) {
    let rows = x.len() / weight.depth;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        if V::REGISTERS == 32 {
            match rows {
                1 => panels_by::<V, T, 1, 8>(x, weight, out),
                2 => panels_by::<V, T, 2, 8>(x, weight, out),
                3 => panels_by::<V, T, 3, 4>(x, weight, out),
                4 => panels_by::<V, T, 4, 4>(x, weight, out),
                5 => panels_by::<V, T, 5, 4>(x, weight, out),
                6 => panels_by::<V, T, 6, 4>(x, weight, out),
                7 => panels_by::<V, T, 7, 2>(x, weight, out),
                _ => panels_by::<V, T, 8, 2>(x, weight, out),
            }
        } else {
            match rows {
                1 => panels_by::<V, T, 1, 4>(x, weight, out),
                2 => panels_by::<V, T, 2, 2>(x, weight, out),
                3 => panels_by::<V, T, 3, 1>(x, weight, out),
                4 => panels_by::<V, T, 4, 1>(x, weight, out),
                5 => panels_by::<V, T, 5, 1>(x, weight, out),
                _ => panels_by::<V, T, 6, 1>(x, weight, out),
            }
        }
    }
}

/// All rows and panels in tiles of `M` rows by `N` panels, the tails in smaller tiles.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn panels_by<V: Vector, T: Element, const M: usize, const N: usize>(
    x: &[f32],
    weight: &Weights<'_, T>,
    out: &mut Columns<'_>,
) {
    let panels = weight.elements.len() / (weight.depth * LANES);
    let whole = panels - panels % N;
    // SAFETY: the caller has the instructions of `V`.
    unsafe {
        for panel in (0..whole).step_by(N) {
            rows_by::<V, T, M, N>(x, weight, out, panel);
        }
        for panel in whole..panels {
            rows_by::<V, T, M, 1>(x, weight, out, panel);
        }
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn rows_by<V: Vector, T: Element, const M: usize, const N: usize>(
    x: &[f32],
    weight: &Weights<'_, T>,
    out: &mut Columns<'_>,
    panel: usize,
) {
    let depth = weight.depth;
    let rows = x.len() / depth;
    let whole = rows - rows % M;
    let block = if rows <= ROWS_UNBLOCKED { depth } else { DEPTH_BLOCK };
    for start in (0..depth).step_by(block) {
        let inputs = (start, (start + block).min(depth));
        // SAFETY: the caller has the instructions of `V`.
        unsafe {
            for row in (0..whole).step_by(M) {
                tile::<V, T, M, N>(x, weight, out, (row, panel), inputs);
            }
            let mut row = whole;
            if M > 4 && rows - row >= 4 {
                tile::<V, T, 4, N>(x, weight, out, (row, panel), inputs);
                row += 4;
            }
            if M > 2 && rows - row >= 2 {
                tile::<V, T, 2, N>(x, weight, out, (row, panel), inputs);
                row += 2;
            }
            for row in row..rows {
                tile::<V, T, 1, N>(x, weight, out, (row, panel), inputs);
            }
        }
    }
}

/// Adds inputs `first..last` to `M` rows by `N` panels of the output.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn tile<V: Vector, T: Element, const M: usize, const N: usize>(
    x: &[f32],
    weight: &Weights<'_, T>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
    (first, last): (usize, usize),
) {
    let depth = weight.depth;
    let x = &x[row * depth..(row + M) * depth];
    let panels = &weight.elements[panel * depth * LANES..(panel + N) * depth * LANES];
    assert!(first <= last && last <= depth);
    // SAFETY: the caller has the instructions of `V`. `x` holds `M * depth` floats, `panels` holds
    // `N * depth * 16`, and `i < depth`; `begin` and `end` check their own slices.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = begin(weight, out, (row + m, panel + n), first == 0);
            }
        }
        for i in first..last {
            let mut weights = [V::splat(0.0); N];
            for (n, weights) in weights.iter_mut().enumerate() {
                *weights = T::load(panels.as_ptr().add((n * depth + i) * LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*x.get_unchecked(m * depth + i));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = value.mul_add(weights, *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                end(*sum, out.lanes(row + m, panel + n));
            }
        }
    }
}

/// Sums to begin with: the bias before the first input, else what waits in the output.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn begin<V: Vector, T: Element>(
    weight: &Weights<'_, T>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
    is_first: bool,
) -> V {
    let mut padded = [0.0; LANES];
    let source = if !is_first {
        out.lanes(row, panel)
    } else if weight.bias.is_empty() {
        &mut padded
    } else {
        let bias = &weight.bias[panel * LANES..(panel + 1) * LANES];
        // SAFETY: sixteen floats lie there.
        return unsafe { V::load(bias.as_ptr()) };
    };
    // SAFETY: sixteen floats lie behind either pointer.
    unsafe {
        if source.len() == LANES {
            return V::load(source.as_ptr());
        }
        let mut padded = [0.0; LANES];
        padded[..source.len()].copy_from_slice(source);
        V::load(padded.as_ptr())
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn end<V: Vector>(sums: V, lanes: &mut [f32]) {
    // SAFETY: sixteen floats lie behind the pointer; the array copies the others.
    unsafe {
        if lanes.len() == LANES {
            sums.store(lanes.as_mut_ptr());
        } else {
            lanes.copy_from_slice(&sums.to_array()[..lanes.len()]);
        }
    }
}
