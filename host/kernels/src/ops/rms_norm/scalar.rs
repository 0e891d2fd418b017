//! The specification: sixteen partial sums of squares, position modulo sixteen, added in halves.

use crate::aligned::LANES;
use crate::simd::sum_lanes;

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut sums = [0.0_f32; LANES];
        for (i, value) in x.iter().enumerate() {
            sums[i % LANES] = value.mul_add(*value, sums[i % LANES]);
        }
        let scale = 1.0 / (sum_lanes(sums) / width as f32 + eps).sqrt();
        for i in 0..width {
            out[i] = x[i] * scale * weight[i];
        }
    }
}
