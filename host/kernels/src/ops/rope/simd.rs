//! The vector body.

use crate::aligned::LANES;
use crate::simd::Vector;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn rotate<V: Vector>(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    assert_eq!(sin.len(), half);
    let whole = half - half % LANES;
    for head in x.chunks_exact_mut(head_dim) {
        let (low, high) = head[..2 * half].split_at_mut(half);
        for i in (0..whole).step_by(LANES) {
            // SAFETY: the caller has the instructions; all four slices hold `half` floats.
            unsafe {
                let (a, b) = (V::load(low.as_ptr().add(i)), V::load(high.as_ptr().add(i)));
                let (cos, sin) = (V::load(cos.as_ptr().add(i)), V::load(sin.as_ptr().add(i)));
                a.mul(cos).sub(b.mul(sin)).store(low.as_mut_ptr().add(i));
                b.mul(cos).add(a.mul(sin)).store(high.as_mut_ptr().add(i));
            }
        }
        for i in whole..half {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cos[i] - b * sin[i];
            high[i] = b * cos[i] + a * sin[i];
        }
    }
}
