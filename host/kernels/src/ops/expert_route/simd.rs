//! The vector body; the last positions of a row are done as in the specification.

use crate::aligned::LANES;
use crate::simd::math::{exp, exp_vector, max};
use crate::simd::{Vector, max_lanes, sum_lanes};

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn softmax<V: Vector>(logits: &mut [f32], width: usize) {
    for row in logits.chunks_exact_mut(width) {
        let (whole, rest) = row.split_at_mut(width - width % LANES);
        // SAFETY: the caller has the instructions; every chunk holds sixteen floats.
        unsafe {
            let mut largest = V::splat(f32::NEG_INFINITY);
            for chunk in whole.chunks_exact(LANES) {
                largest = largest.max(V::load(chunk.as_ptr()));
            }
            let mut largest = largest.to_array();
            for (largest, value) in largest.iter_mut().zip(&*rest) {
                *largest = max(*largest, *value);
            }
            let largest = max_lanes(largest);
            let mut sums = V::splat(0.0);
            for chunk in whole.chunks_exact_mut(LANES) {
                let weight = exp_vector(V::load(chunk.as_ptr()).sub(V::splat(largest)));
                weight.store(chunk.as_mut_ptr());
                sums = sums.add(weight);
            }
            let mut sums = sums.to_array();
            for (sum, value) in sums.iter_mut().zip(&mut *rest) {
                *value = exp(*value - largest);
                *sum += *value;
            }
            let total = sum_lanes(sums);
            for chunk in whole.chunks_exact_mut(LANES) {
                V::load(chunk.as_ptr()).div(V::splat(total)).store(chunk.as_mut_ptr());
            }
            rest.iter_mut().for_each(|value| *value /= total);
        }
    }
}
