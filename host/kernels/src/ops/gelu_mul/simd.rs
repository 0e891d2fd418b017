//! The vector body.

use super::scalar;
use crate::aligned::LANES;
use crate::simd::Vector;
use crate::simd::math::gelu_vector;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn gelu_mul<V: Vector>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len());
    let whole = gate.len() - gate.len() % LANES;
    for i in (0..whole).step_by(LANES) {
        // SAFETY: the caller has the instructions; all three slices hold `whole` floats.
        unsafe {
            let value = gelu_vector(V::load(gate.as_ptr().add(i)));
            value.mul(V::load(up.as_ptr().add(i))).store(out.as_mut_ptr().add(i));
        }
    }
    scalar::gelu_mul(&gate[whole..], &up[whole..], &mut out[whole..]);
}
