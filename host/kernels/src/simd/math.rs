//! `exp` and friends, once for a float and once for a vector, with the same bits.
//!
//! The C library's `expf` differs between versions and CPUs; a result that must be reproducible
//! anywhere can't use it.

#[cfg(target_arch = "x86_64")]
use super::Vector;

/// Above this `exp` is clamped: the power of two stays below 2^128.
const X_MAX: f32 = 88.0;
/// Below this `exp` is clamped, to about 1.2e-38: the power of two stays a normal number.
const X_MIN: f32 = -87.0;
/// `ln 2` in two parts; products of the first with integers below 2^9 are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Polynomial for `(exp(r) - 1 - r) / r²` on ±ln 2 / 2, from the highest power (Cephes `expf`).
const POLYNOMIAL: [f32; 6] =
    [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// `if a > b { a } else { b }`
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `if a < b { a } else { b }`
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `exp(x)` within 2 units in the last place; NaN stays NaN; clamped outside -87 and 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = max(X_MIN, min(X_MAX, x));
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = p.mul_add(r, *coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    // A NaN converts to 0 here and to i32::MIN in vectors; the factor p is NaN either way.
    p * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
}

/// [`exp`] of sixteen lanes.
///
/// # Safety
/// As [`Vector`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn exp_vector<V: Vector>(x: V) -> V {
    // SAFETY: the caller has the instructions of `V`; nothing here takes a pointer.
    unsafe {
        let x = V::splat(X_MIN).max(V::splat(X_MAX).min(x));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-LN2_LOW), n.mul_add(V::splat(-LN2_HIGH), x));
        let mut p = V::splat(POLYNOMIAL[0]);
        for coefficient in &POLYNOMIAL[1..] {
            p = p.mul_add(r, V::splat(*coefficient));
        }
        let p = p.mul_add(r.mul(r), r).add(V::splat(1.0));
        p.mul(n.exp2_integer())
    }
}

/// `x / (1 + exp(-x))`
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(0.0 - x))
}

/// [`silu`] of sixteen lanes.
///
/// # Safety
/// As [`Vector`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn silu_vector<V: Vector>(x: V) -> V {
    // SAFETY: as in `exp_vector`.
    unsafe { x.div(V::splat(1.0).add(exp_vector(V::splat(0.0).sub(x)))) }
}

/// Twice `√(2/π)`, and what of it belongs to the cube.
const GELU_LINEAR: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.071_354_814;

/// `x / 2 * (1 + tanh(√(2/π) * (x + 0.044715 x³)))`, as `x / (1 + exp(-2u))`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let twice = x * (x * x).mul_add(GELU_CUBIC, GELU_LINEAR);
    x / (1.0 + exp(0.0 - twice))
}

/// [`gelu`] of sixteen lanes.
///
/// # Safety
/// As [`Vector`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn gelu_vector<V: Vector>(x: V) -> V {
    // SAFETY: as in `exp_vector`.
    unsafe {
        let twice = x.mul(x.mul(x).mul_add(V::splat(GELU_CUBIC), V::splat(GELU_LINEAR)));
        x.div(V::splat(1.0).add(exp_vector(V::splat(0.0).sub(twice))))
    }
}

/// Beyond this `tanh` is 1 in f32.
const TANH_MAX: f32 = 7.905_311;
/// Polynomials in `x²` whose quotient times `x` is `tanh(x)`, from the highest power (Eigen).
const TANH_ABOVE: [f32; 7] = [
    -2.760_768_5e-16,
    2.000_188e-13,
    -8.604_672e-11,
    5.122_297e-8,
    1.485_722_4e-5,
    6.372_619e-4,
    4.893_524_6e-3,
];
const TANH_BELOW: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];

/// `tanh(x)` within a few units in the last place; NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let x = max(-TANH_MAX, min(TANH_MAX, x));
    let square = x * x;
    let (mut above, mut below) = (TANH_ABOVE[0], TANH_BELOW[0]);
    for coefficient in &TANH_ABOVE[1..] {
        above = above.mul_add(square, *coefficient);
    }
    for coefficient in &TANH_BELOW[1..] {
        below = below.mul_add(square, *coefficient);
    }
    x * above / below
}

/// [`tanh`] of sixteen lanes.
///
/// # Safety
/// As [`Vector`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn tanh_vector<V: Vector>(x: V) -> V {
    // SAFETY: as in `exp_vector`.
    unsafe {
        let x = V::splat(-TANH_MAX).max(V::splat(TANH_MAX).min(x));
        let square = x.mul(x);
        let (mut above, mut below) = (V::splat(TANH_ABOVE[0]), V::splat(TANH_BELOW[0]));
        for coefficient in &TANH_ABOVE[1..] {
            above = above.mul_add(square, V::splat(*coefficient));
        }
        for coefficient in &TANH_BELOW[1..] {
            below = below.mul_add(square, V::splat(*coefficient));
        }
        x.mul(above).div(below)
    }
}

/// `cap * tanh(x / cap)`: within the cap on either side.
#[inline(always)]
pub(crate) fn softcap(x: f32, cap: f32) -> f32 {
    tanh(x / cap) * cap
}

/// [`softcap`] of sixteen lanes.
///
/// # Safety
/// As [`Vector`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn softcap_vector<V: Vector>(x: V, cap: V) -> V {
    // SAFETY: as in `exp_vector`.
    unsafe { tanh_vector(x.div(cap)).mul(cap) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_real_one() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = ((f64::from(exp(x)) - expected) / expected).abs();
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn tanh_is_close_to_the_real_one() {
        for i in -12_000..=12_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).tanh();
            let error = (f64::from(tanh(x)) - expected).abs();
            assert!(error <= 4.0 * f64::from(f32::EPSILON) * expected.abs(), "tanh({x}): {error}");
        }
        assert_eq!(tanh(0.0), 0.0);
        assert!(tanh(f32::NAN).is_nan());
        for far in [8.0, 1e30, f32::INFINITY] {
            assert!((tanh(far) - 1.0).abs() < 1e-6 && tanh(far) == -tanh(-far));
        }
        assert_eq!(softcap(0.5, 50.0), tanh(0.01) * 50.0);
    }
}
