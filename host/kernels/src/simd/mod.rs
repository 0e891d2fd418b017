//! Sixteen floats at a time: one interface over AVX-512 and AVX2.
//!
//! An op writes its vector body once, generic over [`Vector`], and [`vector_levels`] compiles it per
//! instruction set. Everything here rounds exactly as the scalar expression beside it, so all
//! levels agree bit for bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;

/// Sixteen floats.
///
/// # Safety
/// Every method requires that the CPU has the instructions of the implementation; callers are
/// compiled with them enabled, see [`vector_levels`].
#[cfg(target_arch = "x86_64")]
pub(crate) trait Vector: Copy {
    /// Registers of the instruction set, each as wide as it has them.
    const REGISTERS: usize;

    /// Sixteen copies of `value`.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen floats from `source`, of any alignment.
    ///
    /// # Safety
    /// `source` is readable for 16 floats.
    unsafe fn load(source: *const f32) -> Self;
    /// Sixteen f16 from `source`, of any alignment, widened exactly.
    ///
    /// # Safety
    /// `source` is readable for 16 numbers.
    unsafe fn load_f16(source: *const u16) -> Self;
    /// Sixteen bf16 from `source`, of any alignment, widened exactly.
    ///
    /// # Safety
    /// `source` is readable for 16 numbers.
    unsafe fn load_bf16(source: *const u16) -> Self;
    /// Sixteen bytes from `source`, of any alignment.
    ///
    /// # Safety
    /// `source` is readable for 16 bytes.
    unsafe fn load_i8(source: *const i8) -> Self;
    /// Writes sixteen floats to `target`, of any alignment.
    ///
    /// # Safety
    /// `target` is writable for 16 floats.
    unsafe fn store(self, target: *mut f32);
    /// `self * b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`
    unsafe fn sub(self, b: Self) -> Self;
    /// `self * b`
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`
    unsafe fn div(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`, so a NaN in `b` stays.
    unsafe fn min(self, b: Self) -> Self;
    /// `if self > b { self } else { b }`, so a NaN in `b` stays.
    unsafe fn max(self, b: Self) -> Self;
    /// `if of >= floor { self } else { 0.0 }`
    unsafe fn where_at_least(self, of: Self, floor: Self) -> Self;
    /// Nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// The integer beside it that is nearer to zero.
    unsafe fn trunc(self) -> Self;
    /// Two to the power of `self`, which holds integers within -126 and 127.
    unsafe fn exp2_integer(self) -> Self;

    /// The lanes as an array.
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; 16] {
        let mut lanes = [0.0; 16];
        // SAFETY: the array holds 16 floats.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }
}

/// Sum of sixteen lanes, halves onto halves.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Largest of sixteen lanes.
#[inline(always)]
pub(crate) fn max_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = math::max(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// Declares `run(level, args…)` that calls `scalar::$name` or the generic `simd::$name` compiled for
/// the level. Elsewhere than on x86 the compiler's own vectors of the scalar body must do.
macro_rules! vector_levels {
    ($visible:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2($($arg: $ty),*) {
            // SAFETY: compiled with the instructions of `Avx2`.
            unsafe { simd::$name::<$crate::simd::Avx2>($($arg),*) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,fma,f16c")]
        fn avx512($($arg: $ty),*) {
            // SAFETY: compiled with the instructions of `Avx512`.
            unsafe { simd::$name::<$crate::simd::Avx512>($($arg),*) }
        }

        $visible fn run(level: $crate::dispatch::Level, $($arg: $ty),*) {
            match level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `level` comes from `dispatch`, which asked the CPU.
                $crate::dispatch::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `level` comes from `dispatch`, which asked the CPU.
                $crate::dispatch::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => scalar::$name($($arg),*),
            }
        }
    };
}
pub(crate) use vector_levels;
