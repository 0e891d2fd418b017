//! The specification: sixteen partial sums, input modulo sixteen, added in halves. The last run is
//! padded with zeros as the weight is.

use super::Rows;
use crate::aligned::LANES;
use crate::simd::sum_lanes;

pub(super) fn shrink(x: &[f32], weight: &Rows<'_>, out: &mut [f32]) {
    let padded = weight.padded();
    for (x, out) in x.chunks_exact(weight.depth).zip(out.chunks_exact_mut(weight.rank)) {
        for (out, a) in out.iter_mut().zip(weight.floats.chunks_exact(padded)) {
            let mut sums = [0.0_f32; LANES];
            for (i, a) in a.iter().enumerate() {
                let x = x.get(i).copied().unwrap_or(0.0);
                sums[i % LANES] = x.mul_add(*a, sums[i % LANES]);
            }
            *out = sum_lanes(sums);
        }
    }
}
