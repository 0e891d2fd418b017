//! The specification: an output adds the products of its rank in order, then is scaled into `y`
//! with one rounding.

use crate::LoraPair;
use crate::aligned::LANES;

pub(super) fn expand(hidden: &[f32], weight: &LoraPair, out: &mut [f32]) {
    let (rank, width) = (weight.rank(), weight.out_features());
    for (hidden, y) in hidden.chunks_exact(rank).zip(out.chunks_exact_mut(width)) {
        for (output, y) in y.iter_mut().enumerate() {
            let panel = &weight.b()[output / LANES * LANES * rank..];
            let mut sum = 0.0_f32;
            for (i, h) in hidden.iter().enumerate() {
                sum = h.mul_add(panel[i * LANES + output % LANES], sum);
            }
            *y = sum.mul_add(weight.scale(), *y);
        }
    }
}
