//! The vector body; the last positions of a row are done as in the specification.

use crate::aligned::LANES;
use crate::simd::{Vector, sum_lanes};

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn rms_norm<V: Vector>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    let whole = width - width % LANES;
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        // SAFETY: the caller has the instructions; every pointer has 16 floats below `whole`, which
        // is at most the length of `x`, `weight` and `out`.
        unsafe {
            let mut sums = V::splat(0.0);
            for i in (0..whole).step_by(LANES) {
                let value = V::load(x.as_ptr().add(i));
                sums = value.mul_add(value, sums);
            }
            let mut sums = sums.to_array();
            for (i, value) in x[whole..].iter().enumerate() {
                sums[i] = value.mul_add(*value, sums[i]);
            }
            let scale = 1.0 / (sum_lanes(sums) / width as f32 + eps).sqrt();
            for i in (0..whole).step_by(LANES) {
                let value = V::load(x.as_ptr().add(i)).mul(V::splat(scale));
                value.mul(V::load(weight.as_ptr().add(i))).store(out.as_mut_ptr().add(i));
            }
            for i in whole..width {
                out[i] = x[i] * scale * weight[i];
            }
        }
    }
}
