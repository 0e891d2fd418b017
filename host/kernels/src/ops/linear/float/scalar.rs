//! The specification: an output begins as its bias and adds one input after the other, each rounded
//! once.

use super::{Columns, Element, Panels, with_elements};
use crate::aligned::LANES;

pub(super) fn gemm(x: &[f32], weight: &Panels<'_>, out: &mut Columns<'_>) {
    with_elements!(weight.held, elements => product(x, weight, weight.of(elements), out));
}

fn product<T: Element>(x: &[f32], weight: &Panels<'_>, elements: &[T], out: &mut Columns<'_>) {
    let depth = weight.depth;
    for (row, x) in x.chunks_exact(depth).enumerate() {
        for (panel, weights) in elements.chunks_exact(depth * LANES).enumerate() {
            let mut sums = [0.0_f32; LANES];
            if !weight.bias.is_empty() {
                sums.copy_from_slice(&weight.bias[panel * LANES..(panel + 1) * LANES]);
            }
            for (x, weights) in x.iter().zip(weights.chunks_exact(LANES)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = x.mul_add(weight.widen(), *sum);
                }
            }
            let lanes = out.lanes(row, panel);
            lanes.copy_from_slice(&sums[..lanes.len()]);
        }
    }
}
