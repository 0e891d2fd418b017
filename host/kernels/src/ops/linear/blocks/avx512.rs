//! AVX-512 with VNNI: sixteen outputs by four inputs in one instruction.

use std::arch::x86_64::*;

use super::format::{QUAD, QUADS};
use super::rows::QUANT_MAX;
use super::{Columns, Format, Panels, RUN, Rows};
use crate::aligned::LANES;
use crate::prefetch::Ahead;

/// # Safety
/// The CPU has AVX-512F and AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn gemm<F: Format>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    ahead: &mut Ahead<'_>,
) {
    let mut row = 0;
    // Every run of every tile asks for as many lines.
    let pace = ahead.pace(tiles(x.rows, weight.panels) * weight.runs);
    let mut ahead = (pace, ahead);
    while row < x.rows {
        // SAFETY: the caller has the instructions.
        row += unsafe {
            match rows_at_once(x.rows - row) {
                1 => panels_by::<F, 1, false>(x, weight, out, row, &mut ahead),
                2 => panels_by::<F, 2, true>(x, weight, out, row, &mut ahead),
                _ => panels_by::<F, 4, true>(x, weight, out, row, &mut ahead),
            }
        };
    }
}

/// Panels of a tile. One row waits for memory, so several panels are on their way. Of more rows, each
/// load of a weight or of an activation serves four products: with fewer, loads bound the loop.
const PANELS: usize = 4;

/// Rows of the next tiles, where so many are left.
fn rows_at_once(left: usize) -> usize {
    match left {
        1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// Tiles that rows by panels are cut into.
fn tiles(rows: usize, panels: usize) -> usize {
    let (fours, rest) = (rows / 4, rows % 4);
    (fours + rest / 2 + rest % 2) * panels.div_ceil(PANELS)
}

/// `M` rows from `row` on by all panels, [`PANELS`] at a time; returns `M`. `ASKS` says whether
/// lines are asked for in each run, or all those of a tile before it: there are few for a single row, and
/// between its loads there is no time for anything.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn panels_by<F: Format, const M: usize, const ASKS: bool>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    row: usize,
    ahead: &mut (usize, &mut Ahead<'_>),
) -> usize {
    for panel in (0..weight.panels).step_by(PANELS) {
        let at = (row, panel);
        if !ASKS {
            ahead.1.ask(ahead.0 * weight.runs);
        }
        // SAFETY: the caller has the instructions.
        unsafe {
            match weight.panels - panel {
                1 => tile::<F, M, 1, ASKS>(x, weight, out, at, (ahead.0, &mut *ahead.1)),
                2 => tile::<F, M, 2, ASKS>(x, weight, out, at, (ahead.0, &mut *ahead.1)),
                3 => tile::<F, M, 3, ASKS>(x, weight, out, at, (ahead.0, &mut *ahead.1)),
                _ => tile::<F, M, PANELS, ASKS>(x, weight, out, at, (ahead.0, &mut *ahead.1)),
            }
        }
    }
    M
}

/// `M` rows by `N` panels of the output.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<F: Format, const M: usize, const N: usize, const ASKS: bool>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
    (pace, ahead): (usize, &mut Ahead<'_>),
) {
    let runs = weight.runs;
    let quants = &weight.quants[panel * runs * F::QUANT_BYTES..(panel + N) * runs * F::QUANT_BYTES];
    let groups = runs / F::GROUP;
    let scales =
        &weight.scales[panel * groups * F::SCALE_BYTES..(panel + N) * groups * F::SCALE_BYTES];
    let x = x.of::<M>(row, runs);
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    if !weight.bias.is_empty() {
        for n in 0..N {
            let bias = &weight.bias[(panel + n) * LANES..(panel + n + 1) * LANES];
            // SAFETY: the slice holds sixteen floats.
            let bias = unsafe { _mm512_loadu_ps(bias.as_ptr()) };
            sums.iter_mut().for_each(|sums| sums[n] = bias);
        }
    }
    for run in 0..runs {
        if ASKS {
            ahead.ask(pace);
        }
        let mut of_run = [(std::ptr::null(), std::ptr::null()); N];
        for (n, of_run) in of_run.iter_mut().enumerate() {
            // SAFETY: `quants` holds `N` panels of `runs` runs, and `scales` their groups.
            *of_run = unsafe {
                (
                    quants.as_ptr().add((n * runs + run) * F::QUANT_BYTES),
                    scales.as_ptr().add((n * groups + run / F::GROUP) * F::SCALE_BYTES),
                )
            };
        }
        // SAFETY: the caller has the instructions; the pointers are those of run `run`.
        unsafe { add_run::<F, M, N>(&x, run, &of_run, &mut sums) };
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            let mut lanes = [0.0_f32; LANES];
            // SAFETY: the array holds sixteen floats.
            unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sum) };
            let target = out.lanes(row + m, panel + n);
            target.copy_from_slice(&lanes[..target.len()]);
        }
    }
}

/// `M` rows of activations.
struct Few<'a, const M: usize> {
    quants: &'a [i8],
    scales: &'a [f32],
    sums: &'a [[i32; 2]],
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows `row..row + M`, each of at least `runs` runs.
    fn of<const M: usize>(&self, row: usize, runs: usize) -> Few<'a, M> {
        assert!(row + M <= self.rows && runs <= self.runs);
        let range = row * self.runs..(row + M) * self.runs;
        Few {
            quants: &self.quants[range.start * RUN..range.end * RUN],
            scales: &self.scales[range.clone()],
            sums: &self.sums[range],
            stride: self.runs,
        }
    }
}

/// Adds one run to the sums.
///
/// # Safety
/// As [`gemm`]; `run` is below `x.stride`, and the pointers are to the quants and scales of it.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_run<F: Format, const M: usize, const N: usize>(
    x: &Few<'_, M>,
    run: usize,
    of_run: &[(*const u8, *const u8); N],
    sums: &mut [[__m512; N]; M],
) {
    // SAFETY: the caller's promise. `x` holds `M` rows of `stride` runs.
    unsafe {
        for half in 0..F::HALVES {
            let mut products = [[_mm512_setzero_si512(); N]; M];
            if F::OFFSET != 0 {
                for (m, products) in products.iter_mut().enumerate() {
                    let both = x.sums.get_unchecked(m * x.stride + run);
                    let sum = if F::HALVES == 1 { both[0] + both[1] } else { both[half] };
                    *products = [_mm512_set1_epi32(-F::OFFSET * sum); N];
                }
            }
            for quad in half * QUADS / F::HALVES..(half + 1) * QUADS / F::HALVES {
                let mut weights = [_mm512_setzero_si512(); N];
                for (weights, (quants, _)) in weights.iter_mut().zip(of_run) {
                    *weights = F::quad(*quants, quad);
                }
                for (m, products) in products.iter_mut().enumerate() {
                    let at = (m * x.stride + run) * RUN + quad * QUAD;
                    let four = x.quants.as_ptr().add(at).cast::<i32>().read_unaligned();
                    let four = _mm512_set1_epi32(four);
                    for (product, weights) in products.iter_mut().zip(weights) {
                        *product = _mm512_dpbusd_epi32(*product, weights, four);
                    }
                }
            }
            for (n, (_, scales)) in of_run.iter().enumerate() {
                let scale = F::scales512(*scales, run % F::GROUP, half);
                for m in 0..M {
                    let x_scale = _mm512_set1_ps(*x.scales.get_unchecked(m * x.stride + run));
                    let product = _mm512_cvtepi32_ps(products[m][n]);
                    let scale = _mm512_mul_ps(scale, x_scale);
                    sums[m][n] = _mm512_fmadd_ps(product, scale, sums[m][n]);
                }
            }
        }
        if F::HAS_MIN {
            for (n, (_, scales)) in of_run.iter().enumerate() {
                let min = F::mins512(*scales, run % F::GROUP);
                for (m, sums) in sums.iter_mut().enumerate() {
                    let both = x.sums.get_unchecked(m * x.stride + run);
                    let x_scale = *x.scales.get_unchecked(m * x.stride + run);
                    let total = _mm512_set1_ps((both[0] + both[1]) as f32 * x_scale);
                    sums[n] = _mm512_fnmadd_ps(min, total, sums[n]);
                }
            }
        }
    }
}

/// Rounds a run to eight bits and sums its halves; returns the scale. The same numbers as the scalar one
/// of [`super::rows`].
///
/// # Safety
/// The CPU has AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn round(
    values: &[f32; RUN],
    quants: &mut [i8; RUN],
    sums: &mut [i32; 2],
) -> f32 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    // SAFETY: the array holds two vectors.
    let halves =
        unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(LANES))] };
    let bits = halves
        .map(|half| _mm512_and_si512(_mm512_castps_si512(half), _mm512_set1_epi32(0x7fff_ffff)));
    // Magnitudes order as their bits do; infinity and NaN lie above all.
    let largest = _mm512_reduce_max_epu32(_mm512_max_epu32(bits[0], bits[1]));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return f32::NAN;
    }
    let inverse = if largest == 0.0 { 0.0 } else { QUANT_MAX / largest };
    let bounds = (_mm512_set1_ps(-QUANT_MAX), _mm512_set1_ps(QUANT_MAX));
    for (half, value) in halves.into_iter().enumerate() {
        let scaled = _mm512_mul_ps(value, _mm512_set1_ps(inverse));
        let whole = _mm512_roundscale_ps::<NEAREST>(scaled);
        let whole = _mm512_min_ps(_mm512_max_ps(whole, bounds.0), bounds.1);
        let whole = _mm512_cvtps_epi32(whole);
        sums[half] = _mm512_reduce_add_epi32(whole);
        let target = &mut quants[half * LANES..(half + 1) * LANES];
        // SAFETY: the slice holds sixteen bytes.
        unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(whole)) };
    }
    largest / QUANT_MAX
}
