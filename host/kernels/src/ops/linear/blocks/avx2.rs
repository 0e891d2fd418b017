//! AVX2: four outputs by four inputs in one multiply-add of 16-bit numbers, which cannot overflow.

use std::arch::x86_64::*;

use super::format::{QUAD, QUADS};
use super::{Columns, Format, Panels, RUN, Rows};
use crate::aligned::LANES;

/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn gemm<F: Format>(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    for panel in 0..weight.panels {
        let mut row = 0;
        while row < x.rows {
            // SAFETY: the caller has the instructions.
            row += unsafe {
                if x.rows - row >= 2 {
                    tile::<F, 2>(x, weight, out, (row, panel))
                } else {
                    tile::<F, 1>(x, weight, out, (row, panel))
                }
            };
        }
    }
}

/// `M` rows of one panel; returns `M`.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format, const M: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
) -> usize {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    if !weight.bias.is_empty() {
        let bias = &weight.bias[panel * LANES..(panel + 1) * LANES];
        // SAFETY: the slice holds sixteen floats.
        let bias =
            unsafe { [_mm256_loadu_ps(bias.as_ptr()), _mm256_loadu_ps(bias.as_ptr().add(8))] };
        sums = [bias; M];
    }
    for run in 0..weight.runs {
        let (quants, scales) = (weight.quants::<F>(panel, run), weight.scales::<F>(panel, run));
        for half in 0..F::HALVES {
            // SAFETY: the caller has the instructions; the slices are a run's.
            unsafe {
                let products = products::<F, M>(x, quants, (row, run, half));
                add::<F, M>(x, scales, (row, run, half), &products, &mut sums);
            }
        }
        if F::HAS_MIN {
            // SAFETY: the caller has the instructions; the slice is a group's.
            unsafe { take_min::<F, M>(x, scales, (row, run), &mut sums) };
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        let mut lanes = [0.0_f32; LANES];
        // SAFETY: the array holds sixteen floats.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(8), sums[1]);
        }
        let target = out.lanes(row + m, panel);
        target.copy_from_slice(&lanes[..target.len()]);
    }
    M
}

/// Products of half a run: sixteen outputs of each row in two registers.
///
/// # Safety
/// As [`gemm`]; `quants` are those of a run.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<F: Format, const M: usize>(
    x: &Rows<'_>,
    quants: &[u8],
    (row, run, half): (usize, usize, usize),
) -> [[__m256i; 2]; M] {
    assert_eq!(quants.len(), F::QUANT_BYTES);
    // Two partial sums of each output, four outputs to a register.
    let mut partial = [[_mm256_setzero_si256(); 4]; M];
    for quad in half * QUADS / F::HALVES..(half + 1) * QUADS / F::HALVES {
        let mut four = [_mm256_setzero_si256(); M];
        for (m, four) in four.iter_mut().enumerate() {
            let at = ((row + m) * x.runs + run) * RUN + quad * QUAD;
            let bytes = &x.quants[at..at + QUAD];
            // SAFETY: the slice holds four bytes.
            let bytes = unsafe { bytes.as_ptr().cast::<i32>().read_unaligned() };
            *four = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(bytes)));
        }
        for quarter in 0..4 {
            // SAFETY: the caller has the instructions, `quants` holds a run.
            let weights = unsafe { F::quarter(quants.as_ptr(), quad, quarter) };
            let weights = _mm256_cvtepu8_epi16(weights);
            for (partial, four) in partial.iter_mut().zip(four) {
                let product = _mm256_madd_epi16(weights, four);
                partial[quarter] = _mm256_add_epi32(partial[quarter], product);
            }
        }
    }
    let mut products = [[_mm256_setzero_si256(); 2]; M];
    for (products, partial) in products.iter_mut().zip(partial) {
        for side in 0..2 {
            // Outputs 0 1 4 5 2 3 6 7, put in order.
            let pairs = _mm256_hadd_epi32(partial[2 * side], partial[2 * side + 1]);
            products[side] = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
        }
    }
    products
}

/// Adds half a run to the sums.
///
/// # Safety
/// As [`gemm`]; `scales` are those of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<F: Format, const M: usize>(
    x: &Rows<'_>,
    scales: &[u8],
    (row, run, half): (usize, usize, usize),
    products: &[[__m256i; 2]; M],
    sums: &mut [[__m256; 2]; M],
) {
    assert_eq!(scales.len(), F::SCALE_BYTES);
    for side in 0..2 {
        // SAFETY: the caller has the instructions, `scales` holds a group.
        let scale = unsafe { F::scales256(scales.as_ptr(), (run % F::GROUP, half), side) };
        for m in 0..M {
            let of_row = (row + m) * x.runs + run;
            let both = x.sums[of_row];
            let sum = if F::HALVES == 1 { both[0] + both[1] } else { both[half] };
            let offset = _mm256_set1_epi32(F::OFFSET * sum);
            let product = _mm256_cvtepi32_ps(_mm256_sub_epi32(products[m][side], offset));
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales[of_row]));
            sums[m][side] = _mm256_fmadd_ps(product, scale, sums[m][side]);
        }
    }
}

/// Takes the minimum of a run from the sums.
///
/// # Safety
/// As [`gemm`]; `scales` are those of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn take_min<F: Format, const M: usize>(
    x: &Rows<'_>,
    scales: &[u8],
    (row, run): (usize, usize),
    sums: &mut [[__m256; 2]; M],
) {
    assert_eq!(scales.len(), F::SCALE_BYTES);
    for side in 0..2 {
        // SAFETY: the caller has the instructions, `scales` holds a group.
        let min = unsafe { F::mins256(scales.as_ptr(), run % F::GROUP, side) };
        for (m, sums) in sums.iter_mut().enumerate() {
            let of_row = (row + m) * x.runs + run;
            let both = x.sums[of_row];
            let total = _mm256_set1_ps((both[0] + both[1]) as f32 * x.scales[of_row]);
            sums[side] = _mm256_fnmadd_ps(min, total, sums[side]);
        }
    }
}
