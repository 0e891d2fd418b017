//! The specification: softmax of each row, its sum in sixteen parts by position modulo sixteen.

use crate::aligned::LANES;
use crate::simd::math::{exp, max};
use crate::simd::{max_lanes, sum_lanes};

pub(super) fn softmax(logits: &mut [f32], width: usize) {
    for row in logits.chunks_exact_mut(width) {
        let mut largest = [f32::NEG_INFINITY; LANES];
        for (i, value) in row.iter().enumerate() {
            largest[i % LANES] = max(largest[i % LANES], *value);
        }
        let largest = max_lanes(largest);
        let mut sums = [0.0_f32; LANES];
        for (i, value) in row.iter_mut().enumerate() {
            *value = exp(*value - largest);
            sums[i % LANES] += *value;
        }
        let total = sum_lanes(sums);
        row.iter_mut().for_each(|value| *value /= total);
    }
}
