//! AVX-512 with VNNI: sixteen outputs by four inputs in one instruction.

use std::arch::x86_64::*;

use super::{BLOCK, BLOCK_BYTES, Columns, Panels, Rows};
use crate::aligned::LANES;

/// # Safety
/// The CPU has AVX-512F and AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn gemm(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    let panels = weight.bytes.len() / (weight.blocks * BLOCK_BYTES);
    // One row waits for memory, so several panels are on their way; many rows reuse each weight.
    let mut row = 0;
    while row < x.rows {
        let rows = x.rows - row;
        // SAFETY: the caller has the instructions.
        row += unsafe {
            match rows {
                1 => panels_by::<1, 4>(x, weight, out, row, panels),
                2 | 3 => panels_by::<2, 4>(x, weight, out, row, panels),
                4..8 => panels_by::<4, 2>(x, weight, out, row, panels),
                _ => panels_by::<8, 1>(x, weight, out, row, panels),
            }
        };
    }
}

/// `M` rows from `row` on by all panels, `N` at a time; returns `M`.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn panels_by<const M: usize, const N: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    row: usize,
    panels: usize,
) -> usize {
    let whole = panels - panels % N;
    // SAFETY: the caller has the instructions.
    unsafe {
        for panel in (0..whole).step_by(N) {
            tile::<M, N>(x, weight, out, (row, panel));
        }
        for panel in whole..panels {
            tile::<M, 1>(x, weight, out, (row, panel));
        }
    }
    M
}

/// `M` rows by `N` panels of the output.
///
/// # Safety
/// As [`gemm`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const M: usize, const N: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
) {
    let blocks = weight.blocks;
    let bytes = &weight.bytes[panel * blocks * BLOCK_BYTES..(panel + N) * blocks * BLOCK_BYTES];
    let scales = &weight.scales[panel * blocks * LANES..(panel + N) * blocks * LANES];
    let x_bytes = &x.bytes[row * blocks * BLOCK..(row + M) * blocks * BLOCK];
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    if !weight.bias.is_empty() {
        for n in 0..N {
            let bias = &weight.bias[(panel + n) * LANES..(panel + n + 1) * LANES];
            // SAFETY: the slice holds sixteen floats.
            let bias = unsafe { _mm512_loadu_ps(bias.as_ptr()) };
            sums.iter_mut().for_each(|sums| sums[n] = bias);
        }
    }
    for block in 0..blocks {
        let mut products = [[_mm512_setzero_si512(); N]; M];
        for (m, products) in products.iter_mut().enumerate() {
            *products = [_mm512_set1_epi32(-x.offsets[(row + m) * blocks + block]); N];
        }
        for quad in 0..BLOCK / 4 {
            let mut weights = [_mm512_setzero_si512(); N];
            for (n, weights) in weights.iter_mut().enumerate() {
                let at = (n * blocks + block) * BLOCK_BYTES + quad * 4 * LANES;
                // SAFETY: `bytes` holds `N` panels of `blocks` blocks, so 64 bytes from `at` on.
                *weights = unsafe { _mm512_loadu_si512(bytes.as_ptr().add(at).cast()) };
            }
            for (m, products) in products.iter_mut().enumerate() {
                let at = (m * blocks + block) * BLOCK + quad * 4;
                // SAFETY: `x_bytes` holds `M` rows of `blocks` blocks, so 4 bytes from `at` on.
                let four = unsafe { x_bytes.as_ptr().add(at).cast::<i32>().read_unaligned() };
                let four = _mm512_set1_epi32(four);
                for (product, weights) in products.iter_mut().zip(weights) {
                    *product = _mm512_dpbusd_epi32(*product, weights, four);
                }
            }
        }
        for n in 0..N {
            let at = (n * blocks + block) * LANES;
            // SAFETY: `scales` holds `N` panels of `blocks` times sixteen f16.
            let scale = unsafe { _mm256_loadu_si256(scales.as_ptr().add(at).cast()) };
            let scale = _mm512_cvtph_ps(scale);
            for m in 0..M {
                let x_scale = _mm512_set1_ps(x.scales[(row + m) * blocks + block]);
                let product = _mm512_cvtepi32_ps(products[m][n]);
                sums[m][n] = _mm512_fmadd_ps(product, _mm512_mul_ps(scale, x_scale), sums[m][n]);
            }
        }
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
