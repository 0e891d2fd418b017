//! What the experts of each row gave, weighted and added: per row in ascending order of expert, so
//! that a row's sum does not depend on the other rows.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::Tensor;

use super::PARALLEL_WORK_MIN;
use super::expert_route::{Choice, Routing};
use crate::dispatch::{Level, level};
use crate::pool::for_chunks;
use crate::simd::vector_levels;
use crate::tensor::{Place, from_host, host_floats, place, shape_error};
use crate::{KernelError, cuda};

const OP: &str = "expert_combine";

vector_levels! {
    fn combine(y: &[f32], choices: &[Choice], out: &mut [f32])
}

/// Sum of weight times `y` over the pairs of each row: `y` is `[rows * per_row, width]` in the order
/// of [`Routing::gather`], the result `[rows, width]`.
///
/// # Errors
/// Another number of pairs, another type than f32, or a device this build can't use.
pub fn expert_combine(y: &Tensor, routing: &Routing) -> Result<Tensor, KernelError> {
    let pairs = routing.rows() * routing.per_row();
    let width = y.dims().last().copied().unwrap_or(0);
    if y.dims() != [pairs, width] {
        return Err(shape_error(OP, "y", &[pairs, width], y.dims()));
    }
    if place(OP, y.device())? == Place::Cuda {
        return cuda::refuse(OP);
    }
    let source = host_floats(OP, "y", y)?;
    let mut out = vec![0.0; routing.rows() * width];
    on_rows(level(), source.as_slice()?, routing, &mut out);
    from_host(out, (routing.rows(), width))
}

fn on_rows(level: Level, y: &[f32], routing: &Routing, out: &mut [f32]) {
    let width = out.len().checked_div(routing.rows()).unwrap_or(0);
    if width == 0 {
        return;
    }
    let choices: Vec<&[Choice]> = routing.choices().collect();
    let task_rows = (PARALLEL_WORK_MIN / 4).div_ceil(width * routing.per_row());
    for_chunks(out, task_rows * width, |task, out| {
        for (choices, out) in choices[task * task_rows..].iter().zip(out.chunks_exact_mut(width)) {
            run(level, y, choices, out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};
    use crate::{RoutingRule, expert_route};

    #[test]
    fn is_a_weighted_sum_and_a_row_is_alone() {
        let mut random = Random::new(13);
        for (rows, experts, per_row, width) in
            [(1, 3, 3, 1), (6, 5, 2, 17), (50, 9, 4, 33), (300, 8, 2, 128)]
        {
            let rule = RoutingRule { per_row, normalised: true };
            let logits = from_host(random.floats(rows * experts), (rows, experts)).unwrap();
            let routing = expert_route(&logits, rule).unwrap();
            let y = random.floats(rows * per_row * width);
            let out = on_levels(|level| {
                let mut out = vec![0.0; rows * width];
                on_rows(level, &y, &routing, &mut out);
                out
            });
            for (row, choices) in routing.choices().enumerate() {
                for i in 0..width {
                    let term = |choice: &Choice| {
                        let value = y[choice.position as usize * width + i];
                        f64::from(value) * f64::from(choice.weight)
                    };
                    let expected: f64 = choices.iter().map(term).sum();
                    assert!((f64::from(out[row * width + i]) - expected).abs() < 1e-6);
                }
            }
            // The last row by itself.
            let logits = logits.narrow(0, rows - 1, 1).unwrap();
            let alone = expert_route(&logits, rule).unwrap();
            let choices = routing.choices().last().unwrap();
            let y: Vec<f32> = choices
                .iter()
                .flat_map(|choice| &y[choice.position as usize * width..][..width])
                .copied()
                .collect();
            let y = from_host(y, (per_row, width)).unwrap();
            let alone = expert_combine(&y, &alone).unwrap().to_vec2::<f32>().unwrap();
            assert_same_bits(&alone[0], &out[(rows - 1) * width..]);
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let logits = from_host(vec![0.0; 6], (2, 3)).unwrap();
        let rule = RoutingRule { per_row: 2, normalised: false };
        let routing = expert_route(&logits, rule).unwrap();
        for shape in [(2, 6), (3, 4), (6, 2)] {
            let y = from_host(vec![0.0; 12], shape).unwrap();
            assert!(matches!(expert_combine(&y, &routing), Err(KernelError::Shape { .. })));
        }
        let y = from_host(vec![0.0; 12], (4, 3)).unwrap();
        assert!(expert_combine(&y, &routing).is_ok());
        let none = expert_route(&from_host(vec![], (0, 3)).unwrap(), rule).unwrap();
        let y = from_host(vec![], (0, 3)).unwrap();
        assert_eq!(expert_combine(&y, &none).unwrap().dims(), [0, 3]);
    }
}
