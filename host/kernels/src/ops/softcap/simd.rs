//! The vector body.

use super::scalar;
use crate::aligned::LANES;
use crate::simd::Vector;
use crate::simd::math::softcap_vector;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn softcap<V: Vector>(x: &mut [f32], cap: f32) {
    let (whole, rest) = x.split_at_mut(x.len() - x.len() % LANES);
    for chunk in whole.chunks_exact_mut(LANES) {
        // SAFETY: the caller has the instructions; a chunk holds sixteen floats.
        unsafe {
            let value = softcap_vector(V::load(chunk.as_ptr()), V::splat(cap));
            value.store(chunk.as_mut_ptr());
        }
    }
    scalar::softcap(rest, cap);
}
