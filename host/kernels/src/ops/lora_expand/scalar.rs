//! The specification: an output adds the products of its rank in order, then is scaled into `y`
//! with one rounding.

use super::{Columns, Part};
use crate::aligned::LANES;
use crate::elements::{Element, with_elements};

pub(super) fn expand(hidden: &[f32], weight: &Part<'_>, out: &mut Columns<'_>) {
    with_elements!(weight.pair.b(), elements => rows(hidden, weight, elements, out));
}

fn rows<T: Element>(hidden: &[f32], weight: &Part<'_>, b: &[T], out: &mut Columns<'_>) {
    let rank = weight.pair.rank();
    for (row, hidden) in hidden.chunks_exact(rank).enumerate() {
        for panel in 0..out.panels() {
            let b = &b[(weight.panel + panel) * LANES * rank..][..LANES * rank];
            for (lane, y) in out.lanes(weight.row + row, panel).iter_mut().enumerate() {
                let mut sum = 0.0_f32;
                for (i, h) in hidden.iter().enumerate() {
                    sum = h.mul_add(b[i * LANES + lane].widen(), sum);
                }
                *y = sum.mul_add(weight.pair.scale(), *y);
            }
        }
    }
}
