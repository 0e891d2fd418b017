//! AVX-512 with VNNI: sixteen outputs by four inputs in one instruction.

use std::arch::x86_64::*;

use super::format::{QUAD, QUADS};
use super::{Columns, Format, Panels, RUN, Rows};
use crate::aligned::LANES;

/// # Safety
/// The CPU has AVX-512F and AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn gemm<F: Format>(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    // One row waits for memory, so several panels are on their way; many rows reuse each weight.
    let mut row = 0;
    while row < x.rows {
        // SAFETY: the caller has the instructions.
        row += unsafe {
            match x.rows - row {
                1 => panels_by::<F, 1, 4>(x, weight, out, row),
                2 | 3 => panels_by::<F, 2, 4>(x, weight, out, row),
                4..8 => panels_by::<F, 4, 2>(x, weight, out, row),
                _ => panels_by::<F, 8, 1>(x, weight, out, row),
            }
        };
    }
}

/// `M` rows from `row` on by all panels, `N` at a time; returns `M`.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn panels_by<F: Format, const M: usize, const N: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    row: usize,
) -> usize {
    let whole = weight.panels - weight.panels % N;
    // SAFETY: the caller has the instructions.
    unsafe {
        for panel in (0..whole).step_by(N) {
            tile::<F, M, N>(x, weight, out, (row, panel));
        }
        for panel in whole..weight.panels {
            tile::<F, M, 1>(x, weight, out, (row, panel));
        }
    }
    M
}

/// `M` rows by `N` panels of the output.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<F: Format, const M: usize, const N: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
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
