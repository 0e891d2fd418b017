//! The specification: sixteen partial sums, input modulo sixteen, added in halves. The last run is
//! padded with zeros as the weight is.

use super::Rows;
use crate::aligned::LANES;
use crate::elements::{Element, with_elements};
use crate::simd::sum_lanes;

pub(super) fn shrink(x: &[f32], weight: &Rows<'_>, out: &mut [f32]) {
    with_elements!(weight.pair.a(), elements => rows(x, weight, weight.of(elements), out));
}

fn rows<T: Element>(x: &[f32], weight: &Rows<'_>, a: &[T], out: &mut [f32]) {
    let depth = weight.pair.in_features();
    for (x, out) in x.chunks_exact(depth).zip(out.chunks_exact_mut(weight.ranks.len())) {
        for (out, a) in out.iter_mut().zip(a.chunks_exact(depth.next_multiple_of(LANES))) {
            let mut sums = [0.0_f32; LANES];
            for (i, a) in a.iter().enumerate() {
                let x = x.get(i).copied().unwrap_or(0.0);
                sums[i % LANES] = x.mul_add(a.widen(), sums[i % LANES]);
            }
            *out = sum_lanes(sums);
        }
    }
}
