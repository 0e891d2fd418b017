//! The specification, for one row: pairs are added in order, each product rounded with its sum.

use super::Choice;

pub(super) fn combine(y: &[f32], choices: &[Choice], out: &mut [f32]) {
    let width = out.len();
    out.fill(0.0);
    for choice in choices {
        let y = &y[choice.position as usize * width..][..width];
        for (out, y) in out.iter_mut().zip(y) {
            *out = choice.weight.mul_add(*y, *out);
        }
    }
}
