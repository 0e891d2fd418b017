//! The specification: an output begins as its bias and adds one run after the other, each half of it
//! an exact integer times the product of the two scales, rounded once, then takes the minimum.

use super::{Columns, Format, Panels, RUN, Rows};
use crate::aligned::LANES;

pub(super) fn gemm<F: Format>(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    for row in 0..x.rows {
        for panel in 0..weight.panels {
            let mut sums = [0.0_f32; LANES];
            if !weight.bias.is_empty() {
                sums.copy_from_slice(&weight.bias[panel * LANES..(panel + 1) * LANES]);
            }
            for run in 0..weight.runs {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = add::<F>(x, weight, (row, panel, run, lane), *sum);
                }
            }
            let lanes = out.lanes(row, panel);
            lanes.copy_from_slice(&sums[..lanes.len()]);
        }
    }
}

fn add<F: Format>(
    x: &Rows<'_>,
    weight: &Panels<'_>,
    (row, panel, run, lane): (usize, usize, usize, usize),
    mut sum: f32,
) -> f32 {
    let of_row = row * x.runs + run;
    let x_quants = &x.quants[of_row * RUN..(of_row + 1) * RUN];
    let (quants, scales) = (weight.quants::<F>(panel, run), weight.scales::<F>(panel, run));
    let (x_scale, x_sums) = (x.scales[of_row], x.sums[of_row]);
    let width = RUN / F::HALVES;
    for half in 0..F::HALVES {
        let x_sum = if F::HALVES == 1 { x_sums[0] + x_sums[1] } else { x_sums[half] };
        let mut product = -F::OFFSET * x_sum;
        for (offset, x_quant) in x_quants[half * width..(half + 1) * width].iter().enumerate() {
            let quant = F::quant(quants, half * width + offset, lane);
            product += i32::from(quant) * i32::from(*x_quant);
        }
        let scale = F::scale(scales, lane, run % F::GROUP, half) * x_scale;
        sum = (product as f32).mul_add(scale, sum);
    }
    if F::HAS_MIN {
        let x_total = (x_sums[0] + x_sums[1]) as f32 * x_scale;
        sum = (-F::min(scales, lane, run % F::GROUP)).mul_add(x_total, sum);
    }
    sum
}
