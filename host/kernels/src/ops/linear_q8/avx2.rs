//! AVX2: four outputs by four inputs in one multiply-add of 16-bit numbers, which cannot overflow.

use std::arch::x86_64::*;

use super::{BLOCK, BLOCK_BYTES, Columns, Panels, Rows};
use crate::aligned::LANES;

/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn gemm(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    let panels = weight.bytes.len() / (weight.blocks * BLOCK_BYTES);
    for panel in 0..panels {
        let mut row = 0;
        while row < x.rows {
            // SAFETY: the caller has the instructions.
            row += unsafe {
                if x.rows - row >= 2 {
                    tile::<2>(x, weight, out, (row, panel))
                } else {
                    tile::<1>(x, weight, out, (row, panel))
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
unsafe fn tile<const M: usize>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    out: &mut Columns<'_>,
    (row, panel): (usize, usize),
) -> usize {
    let blocks = weight.blocks;
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    if !weight.bias.is_empty() {
        let bias = &weight.bias[panel * LANES..(panel + 1) * LANES];
        // SAFETY: the slice holds sixteen floats.
        let bias =
            unsafe { [_mm256_loadu_ps(bias.as_ptr()), _mm256_loadu_ps(bias.as_ptr().add(8))] };
        sums = [bias; M];
    }
    for block in 0..blocks {
        let at = panel * blocks + block;
        let bytes = &weight.bytes[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        // Two partial sums of each output, four outputs to a register.
        let mut partial = [[_mm256_setzero_si256(); 4]; M];
        for quad in 0..BLOCK / 4 {
            let mut four = [_mm256_setzero_si256(); M];
            for (m, four) in four.iter_mut().enumerate() {
                let at = ((row + m) * blocks + block) * BLOCK + quad * 4;
                let bytes = &x.bytes[at..at + 4];
                // SAFETY: the slice holds four bytes.
                let bytes = unsafe { bytes.as_ptr().cast::<i32>().read_unaligned() };
                *four = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(bytes)));
            }
            let of_quad = bytes[quad * 4 * LANES..][..4 * LANES].chunks_exact(LANES);
            for (quarter, weights) in of_quad.enumerate() {
                // SAFETY: the chunk holds sixteen bytes.
                let weights = unsafe { _mm_loadu_si128(weights.as_ptr().cast()) };
                let weights = _mm256_cvtepu8_epi16(weights);
                for (partial, four) in partial.iter_mut().zip(four) {
                    let product = _mm256_madd_epi16(weights, four);
                    partial[quarter] = _mm256_add_epi32(partial[quarter], product);
                }
            }
        }
        let scales = &weight.scales[at * LANES..(at + 1) * LANES];
        // SAFETY: the slice holds sixteen f16.
        let scales = unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().add(8).cast())),
            ]
        };
        for m in 0..M {
            let of_row = (row + m) * blocks + block;
            let offset = _mm256_set1_epi32(x.offsets[of_row]);
            let x_scale = _mm256_set1_ps(x.scales[of_row]);
            for half in 0..2 {
                // Outputs 0 1 4 5 2 3 6 7, put in order.
                let pairs = _mm256_hadd_epi32(partial[m][2 * half], partial[m][2 * half + 1]);
                let whole = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
                let product = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole, offset));
                let scale = _mm256_mul_ps(scales[half], x_scale);
                sums[m][half] = _mm256_fmadd_ps(product, scale, sums[m][half]);
            }
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
