//! The vector body; the last positions of a row are done as in the specification.

use super::Choice;
use crate::aligned::LANES;
use crate::simd::Vector;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn combine<V: Vector>(y: &[f32], choices: &[Choice], out: &mut [f32]) {
    let width = out.len();
    out.fill(0.0);
    for choice in choices {
        let y = &y[choice.position as usize * width..][..width];
        let whole = width - width % LANES;
        for i in (0..whole).step_by(LANES) {
            // SAFETY: the caller has the instructions; `y` and `out` hold `whole` floats.
            unsafe {
                let sum = V::load(out.as_ptr().add(i));
                let value = V::load(y.as_ptr().add(i));
                V::splat(choice.weight).mul_add(value, sum).store(out.as_mut_ptr().add(i));
            }
        }
        for i in whole..width {
            out[i] = choice.weight.mul_add(y[i], out[i]);
        }
    }
}
