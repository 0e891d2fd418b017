//! Where the quants and scales of sixteen outputs lie, per format, and how they are read.
//!
//! Quants of a run lie as `[quad][output][4]`: four inputs of each output, as one multiply-add of bytes
//! takes them. Four-bit quants share a byte with those four quads on, the upper two bits of six-bit
//! ones lie behind, four quads to a byte.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::f16;

use crate::WeightFormat;
use crate::aligned::LANES;
use crate::ggml::{self, RUN, Run};

/// Inputs of one output that lie side by side.
pub(super) const QUAD: usize = 4;
/// Quads of a run.
pub(super) const QUADS: usize = RUN / QUAD;
/// Bytes of one quad of sixteen outputs, each quant in a byte.
const QUAD_BYTES: usize = QUAD * LANES;
/// Bytes of sixteen f16.
const HALVES_BYTES: usize = 2 * LANES;

/// A format as packed.
///
/// # Safety
/// Of the unsafe functions: the CPU has the instructions named, `quants` is readable for
/// [`Format::QUANT_BYTES`] and `scales` for [`Format::SCALE_BYTES`].
pub(super) trait Format {
    const FORMAT: WeightFormat;
    /// Bytes of the quants of a run of sixteen outputs.
    const QUANT_BYTES: usize;
    /// Bytes of the scales of a group of sixteen outputs.
    const SCALE_BYTES: usize;
    /// Runs that share a group of scales.
    const GROUP: usize = 1;
    /// Scales of a run.
    const HALVES: usize = 1;
    /// Whether a minimum is taken from the weights.
    const HAS_MIN: bool = false;
    /// What quants are too large by.
    const OFFSET: i32;

    /// Puts the quants of a run of output `lane`.
    fn put_quants(target: &mut [u8], lane: usize, run: &Run);

    /// Puts the scales of run `index` of a group; the first also those of the group.
    fn put_scales(target: &mut [u8], lane: usize, index: usize, run: &Run) {
        let _ = index;
        put(target, lane, run.scale);
    }

    /// One quant.
    fn quant(quants: &[u8], input: usize, lane: usize) -> u8;

    /// Scale of half `half` of run `index` of a group.
    fn scale(scales: &[u8], lane: usize, index: usize, half: usize) -> f32 {
        let _ = (index, half);
        float(scales, lane)
    }

    /// Minimum of run `index` of a group.
    fn min(scales: &[u8], lane: usize, index: usize) -> f32 {
        let _ = (scales, lane, index);
        0.0
    }

    /// A quad of sixteen outputs, AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn quad(quants: *const u8, quad: usize) -> __m512i;

    /// A quad of outputs `4 * quarter` to `4 * quarter + 3`, AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn quarter(quants: *const u8, quad: usize, quarter: usize) -> __m128i;

    /// Scales of sixteen outputs, AVX-512F.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales512(scales: *const u8, index: usize, half: usize) -> __m512 {
        let _ = (index, half);
        // SAFETY: the trait's promise.
        unsafe { floats512(scales) }
    }

    /// Minima of sixteen outputs, AVX-512F.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mins512(scales: *const u8, index: usize) -> __m512 {
        let _ = (scales, index);
        // SAFETY: the trait's promise.
        unsafe { _mm512_setzero_ps() }
    }

    /// Scales of outputs `8 * side` to `8 * side + 7`, AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales256(scales: *const u8, (index, half): (usize, usize), side: usize) -> __m256 {
        let _ = (index, half);
        // SAFETY: the trait's promise.
        unsafe { floats256(scales, side) }
    }

    /// Minima of outputs `8 * side` to `8 * side + 7`, AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mins256(scales: *const u8, index: usize, side: usize) -> __m256 {
        let _ = (scales, index, side);
        // SAFETY: the trait's promise.
        unsafe { _mm256_setzero_ps() }
    }
}

fn put(target: &mut [u8], lane: usize, bits: u16) {
    target[2 * lane..2 * lane + 2].copy_from_slice(&bits.to_le_bytes());
}

fn float(scales: &[u8], lane: usize) -> f32 {
    f16::from_le_bytes([scales[2 * lane], scales[2 * lane + 1]]).to_f32()
}

/// Place of an input within the bytes of its quad.
fn at(input: usize, lane: usize) -> usize {
    lane * QUAD + input % QUAD
}

/// Puts four-bit quants, or the lower four bits of wider ones.
fn put_nibbles(target: &mut [u8], lane: usize, run: &Run) {
    for (input, quant) in run.quants.iter().enumerate() {
        let (quad, shift) = (input / QUAD % 4, input / QUAD / 4 * 4);
        target[quad * QUAD_BYTES + at(input, lane)] |= (quant & 15) << shift;
    }
}

fn nibble(quants: &[u8], input: usize, lane: usize) -> u8 {
    let (quad, shift) = (input / QUAD % 4, input / QUAD / 4 * 4);
    quants[quad * QUAD_BYTES + at(input, lane)] >> shift & 15
}

/// # Safety
/// AVX-512F, and sixteen f16 at `halves`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn floats512(halves: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast())) }
}

/// # Safety
/// AVX2, F16C, and sixteen f16 at `halves`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn floats256(halves: *const u8, side: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(halves.add(16 * side).cast())) }
}

/// # Safety
/// AVX-512F, and four quads of nibbles at `quants`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn nibbles512(quants: *const u8, quad: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = _mm512_loadu_si512(quants.add(quad % 4 * QUAD_BYTES).cast());
        let nibbles = if quad < 4 { pair } else { _mm512_srli_epi32::<4>(pair) };
        _mm512_and_si512(nibbles, _mm512_set1_epi32(0x0f0f_0f0f))
    }
}

/// # Safety
/// AVX2, and four quads of nibbles at `quants`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn nibbles128(quants: *const u8, quad: usize, quarter: usize) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = _mm_loadu_si128(quants.add(quad % 4 * QUAD_BYTES + 16 * quarter).cast());
        let nibbles = if quad < 4 { pair } else { _mm_srli_epi32::<4>(pair) };
        _mm_and_si128(nibbles, _mm_set1_epi32(0x0f0f_0f0f))
    }
}

/// Eight bits, a scale for 32 inputs.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    const FORMAT: WeightFormat = WeightFormat::Q8_0;
    const QUANT_BYTES: usize = QUADS * QUAD_BYTES;
    const SCALE_BYTES: usize = HALVES_BYTES;
    const OFFSET: i32 = 128;

    fn put_quants(target: &mut [u8], lane: usize, run: &Run) {
        for (input, quant) in run.quants.iter().enumerate() {
            target[input / QUAD * QUAD_BYTES + at(input, lane)] = *quant;
        }
    }

    fn quant(quants: &[u8], input: usize, lane: usize) -> u8 {
        quants[input / QUAD * QUAD_BYTES + at(input, lane)]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quad(quants: *const u8, quad: usize) -> __m512i {
        // SAFETY: the trait's promise.
        unsafe { _mm512_loadu_si512(quants.add(quad * QUAD_BYTES).cast()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quarter(quants: *const u8, quad: usize, quarter: usize) -> __m128i {
        // SAFETY: the trait's promise.
        unsafe { _mm_loadu_si128(quants.add(quad * QUAD_BYTES + 16 * quarter).cast()) }
    }
}

/// Four bits, a scale for 32 inputs.
pub(super) struct Q4_0;

impl Format for Q4_0 {
    const FORMAT: WeightFormat = WeightFormat::Q4_0;
    const QUANT_BYTES: usize = QUADS / 2 * QUAD_BYTES;
    const SCALE_BYTES: usize = HALVES_BYTES;
    const OFFSET: i32 = 8;

    fn put_quants(target: &mut [u8], lane: usize, run: &Run) {
        put_nibbles(target, lane, run);
    }

    fn quant(quants: &[u8], input: usize, lane: usize) -> u8 {
        nibble(quants, input, lane)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quad(quants: *const u8, quad: usize) -> __m512i {
        // SAFETY: the trait's promise.
        unsafe { nibbles512(quants, quad) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quarter(quants: *const u8, quad: usize, quarter: usize) -> __m128i {
        // SAFETY: the trait's promise.
        unsafe { nibbles128(quants, quad, quarter) }
    }
}

/// Four bits; scale and minimum of 32 inputs are six bits times those of 256.
///
/// Scales: sixteen f16 of the group, sixteen f16 of its minimum, then per run sixteen bytes of each.
pub(super) struct Q4K;

impl Q4K {
    const FACTORS: usize = 2 * HALVES_BYTES;

    /// # Safety
    /// As [`Format::scales512`], `at` being that of sixteen bytes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn factors512(halves: *const u8, factors: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let factors = _mm512_cvtepu8_epi32(_mm_loadu_si128(factors.cast()));
            _mm512_mul_ps(floats512(halves), _mm512_cvtepi32_ps(factors))
        }
    }

    /// # Safety
    /// As [`Format::scales256`].
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn factors256(halves: *const u8, factors: *const u8, side: usize) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let factors = _mm256_cvtepu8_epi32(_mm_loadl_epi64(factors.add(8 * side).cast()));
            _mm256_mul_ps(floats256(halves, side), _mm256_cvtepi32_ps(factors))
        }
    }
}

impl Format for Q4K {
    const FORMAT: WeightFormat = WeightFormat::Q4K;
    const QUANT_BYTES: usize = Q4_0::QUANT_BYTES;
    const SCALE_BYTES: usize = Self::FACTORS + 8 * 2 * LANES;
    const GROUP: usize = 8;
    const HAS_MIN: bool = true;
    const OFFSET: i32 = 0;

    fn put_quants(target: &mut [u8], lane: usize, run: &Run) {
        put_nibbles(target, lane, run);
    }

    fn put_scales(target: &mut [u8], lane: usize, index: usize, run: &Run) {
        put(target, lane, run.scale);
        put(&mut target[HALVES_BYTES..], lane, run.min);
        let at = Self::FACTORS + index * 2 * LANES + lane;
        (target[at], target[at + LANES]) = (run.scale_factors[0], run.min_factor);
    }

    fn quant(quants: &[u8], input: usize, lane: usize) -> u8 {
        nibble(quants, input, lane)
    }

    fn scale(scales: &[u8], lane: usize, index: usize, _half: usize) -> f32 {
        float(scales, lane) * f32::from(scales[Self::FACTORS + index * 2 * LANES + lane])
    }

    fn min(scales: &[u8], lane: usize, index: usize) -> f32 {
        let factor = scales[Self::FACTORS + (index * 2 + 1) * LANES + lane];
        float(&scales[HALVES_BYTES..], lane) * f32::from(factor)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quad(quants: *const u8, quad: usize) -> __m512i {
        // SAFETY: the trait's promise.
        unsafe { nibbles512(quants, quad) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quarter(quants: *const u8, quad: usize, quarter: usize) -> __m128i {
        // SAFETY: the trait's promise.
        unsafe { nibbles128(quants, quad, quarter) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales512(scales: *const u8, index: usize, _half: usize) -> __m512 {
        // SAFETY: the trait's promise.
        unsafe { Self::factors512(scales, scales.add(Self::FACTORS + index * 2 * LANES)) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mins512(scales: *const u8, index: usize) -> __m512 {
        // SAFETY: the trait's promise.
        unsafe {
            let factors = scales.add(Self::FACTORS + (index * 2 + 1) * LANES);
            Self::factors512(scales.add(HALVES_BYTES), factors)
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales256(scales: *const u8, (index, _half): (usize, usize), side: usize) -> __m256 {
        // SAFETY: the trait's promise.
        unsafe { Self::factors256(scales, scales.add(Self::FACTORS + index * 2 * LANES), side) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mins256(scales: *const u8, index: usize, side: usize) -> __m256 {
        // SAFETY: the trait's promise.
        unsafe {
            let factors = scales.add(Self::FACTORS + (index * 2 + 1) * LANES);
            Self::factors256(scales.add(HALVES_BYTES), factors, side)
        }
    }
}

/// Six bits; the scale of 16 inputs is a signed byte times that of 256.
///
/// Scales: sixteen f16 of the group, then per half run sixteen signed bytes.
pub(super) struct Q6K;

impl Q6K {
    /// Where the upper two bits begin.
    const HIGH: usize = Q4_0::QUANT_BYTES;

    fn factors(index: usize, half: usize) -> usize {
        HALVES_BYTES + (2 * index + half) * LANES
    }
}

impl Format for Q6K {
    const FORMAT: WeightFormat = WeightFormat::Q6K;
    const QUANT_BYTES: usize = Self::HIGH + 2 * QUAD_BYTES;
    const SCALE_BYTES: usize = HALVES_BYTES + 16 * LANES;
    const GROUP: usize = 8;
    const HALVES: usize = 2;
    const OFFSET: i32 = 32;

    fn put_quants(target: &mut [u8], lane: usize, run: &Run) {
        put_nibbles(target, lane, run);
        for (input, quant) in run.quants.iter().enumerate() {
            let (quad, shift) = (input / QUAD % 2, input / QUAD / 2 * 2);
            target[Self::HIGH + quad * QUAD_BYTES + at(input, lane)] |= quant >> 4 << shift;
        }
    }

    fn put_scales(target: &mut [u8], lane: usize, index: usize, run: &Run) {
        put(target, lane, run.scale);
        for (half, factor) in run.scale_factors.into_iter().enumerate() {
            target[Self::factors(index, half) + lane] = factor;
        }
    }

    fn quant(quants: &[u8], input: usize, lane: usize) -> u8 {
        let (quad, shift) = (input / QUAD % 2, input / QUAD / 2 * 2);
        let high = quants[Self::HIGH + quad * QUAD_BYTES + at(input, lane)] >> shift & 3;
        nibble(quants, input, lane) | high << 4
    }

    fn scale(scales: &[u8], lane: usize, index: usize, half: usize) -> f32 {
        let factor = scales[Self::factors(index, half) + lane].cast_signed();
        float(scales, lane) * f32::from(factor)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quad(quants: *const u8, quad: usize) -> __m512i {
        // SAFETY: the trait's promise.
        unsafe {
            let high = _mm512_loadu_si512(quants.add(Self::HIGH + quad % 2 * QUAD_BYTES).cast());
            let high = match quad / 2 {
                0 => _mm512_slli_epi32::<4>(high),
                1 => _mm512_slli_epi32::<2>(high),
                2 => high,
                _ => _mm512_srli_epi32::<2>(high),
            };
            let high = _mm512_and_si512(high, _mm512_set1_epi32(0x3030_3030));
            _mm512_or_si512(nibbles512(quants, quad), high)
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quarter(quants: *const u8, quad: usize, quarter: usize) -> __m128i {
        // SAFETY: the trait's promise.
        unsafe {
            let high = quants.add(Self::HIGH + quad % 2 * QUAD_BYTES + 16 * quarter);
            let high = _mm_loadu_si128(high.cast());
            let high = match quad / 2 {
                0 => _mm_slli_epi32::<4>(high),
                1 => _mm_slli_epi32::<2>(high),
                2 => high,
                _ => _mm_srli_epi32::<2>(high),
            };
            let high = _mm_and_si128(high, _mm_set1_epi32(0x3030_3030));
            _mm_or_si128(nibbles128(quants, quad, quarter), high)
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales512(scales: *const u8, index: usize, half: usize) -> __m512 {
        // SAFETY: the trait's promise.
        unsafe {
            let factors = scales.add(Self::factors(index, half));
            let factors = _mm512_cvtepi8_epi32(_mm_loadu_si128(factors.cast()));
            _mm512_mul_ps(floats512(scales), _mm512_cvtepi32_ps(factors))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn scales256(scales: *const u8, (index, half): (usize, usize), side: usize) -> __m256 {
        // SAFETY: the trait's promise.
        unsafe {
            let factors = scales.add(Self::factors(index, half) + 8 * side);
            let factors = _mm256_cvtepi8_epi32(_mm_loadl_epi64(factors.cast()));
            _mm256_mul_ps(floats256(scales, side), _mm256_cvtepi32_ps(factors))
        }
    }
}

/// Whether what is packed agrees with what the file's reader says of a format.
const _: () = {
    assert!(Q8_0::QUANT_BYTES == 512 && Q4_0::QUANT_BYTES == 256 && Q6K::QUANT_BYTES == 384);
};

/// What the quants of a format are too large by, as the file has it.
pub(super) fn agrees<F: Format>() -> bool {
    ggml::offset(F::FORMAT) == F::OFFSET && F::FORMAT.block_len() == F::GROUP * RUN
}
