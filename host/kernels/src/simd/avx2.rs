//! [`Vector`] as two AVX2 registers.

use std::arch::x86_64::*;

use super::Vector;

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

// SAFETY of every block below: the trait requires a CPU with AVX2 and FMA and, where a pointer is
// taken, sixteen floats behind it.
impl Vector for Avx2 {
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_f16(source: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |source: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(source.cast()));
            Self(half(source), half(source.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |source: *const u16| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(source.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            Self(half(source), half(source.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(source: *const i8) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |source: *const i8| {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(source.cast())))
            };
            Self(half(source), half(source.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(target, self.0);
            _mm256_storeu_ps(target.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn where_at_least(self, of: Self, floor: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = |value: __m256, of: __m256, floor: __m256| {
                _mm256_and_ps(value, _mm256_cmp_ps::<_CMP_GE_OQ>(of, floor))
            };
            Self(half(self.0, of.0, floor.0), half(self.1, of.1, floor.1))
        }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: see above.
        unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }

    #[inline(always)]
    unsafe fn trunc(self) -> Self {
        const ZERO: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
        // SAFETY: see above.
        unsafe { Self(_mm256_round_ps::<ZERO>(self.0), _mm256_round_ps::<ZERO>(self.1)) }
    }

    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // SAFETY: see above.
        unsafe { Self(exp2_half(self.0), exp2_half(self.1)) }
    }
}

#[inline(always)]
unsafe fn exp2_half(value: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}
