//! The specification.

use crate::simd::math;

pub(super) fn softcap(x: &mut [f32], cap: f32) {
    x.iter_mut().for_each(|x| *x = math::softcap(*x, cap));
}
