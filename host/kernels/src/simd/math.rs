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
}
