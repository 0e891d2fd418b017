//! Which experts each row goes to, with what weight, and which rows each expert gets.
//!
//! A row chooses alone: its experts and weights do not depend on the other rows.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use std::ops::Range;

use candle_core::Tensor;

use crate::dispatch::level;
use crate::simd::vector_levels;
use crate::tensor::{Place, from_host, host_floats, place, shape_error};
use crate::{KernelError, cuda};

const OP: &str = "expert_route";

vector_levels! {
    fn softmax(logits: &mut [f32], width: usize)
}

/// How a router chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingRule {
    /// Experts of each row, at most as many as there are.
    pub per_row: usize,
    /// Whether the weights of a row's experts are divided by their sum.
    pub normalised: bool,
}

/// One of the experts of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Row of this pair among all pairs in order of expert.
    pub(crate) position: u32,
    pub(crate) weight: f32,
}

/// The pairs of rows and experts of one step: `rows * per_row` of them, in order of expert and then
/// of row.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    per_row: usize,
    /// `[rows][per_row]`, each row's experts in ascending order.
    choices: Vec<Choice>,
    /// Row of each pair.
    rows: Vec<u32>,
    /// Experts that got rows, with their pairs.
    experts: Vec<(usize, Range<usize>)>,
}

impl Routing {
    /// Experts that got rows, in ascending order, and where their pairs are.
    pub fn experts(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.experts.iter().cloned()
    }

    /// The row of each pair of `x`, `[rows, width]`: the result is `[rows * per_row, width]`.
    ///
    /// # Errors
    /// Another number of rows, another type than f32, or a device this build can't use.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let [rows, width] = *x.dims() else {
            return Err(shape_error(OP, "x", &[self.rows(), 0], x.dims()));
        };
        if rows != self.rows() {
            return Err(shape_error(OP, "x", &[self.rows(), width], x.dims()));
        }
        if place(OP, x.device())? == Place::Cuda {
            return cuda::refuse(OP);
        }
        let source = host_floats(OP, "x", x)?;
        let source = source.as_slice()?;
        let mut out = Vec::with_capacity(self.rows.len() * width);
        for row in &self.rows {
            out.extend_from_slice(&source[*row as usize * width..][..width]);
        }
        from_host(out, (self.rows.len(), width))
    }

    /// Rows of the step.
    pub(crate) fn rows(&self) -> usize {
        self.choices.len() / self.per_row
    }

    /// The experts of each row, in ascending order.
    pub(crate) fn choices(&self) -> impl ExactSizeIterator<Item = &[Choice]> {
        self.choices.chunks_exact(self.per_row)
    }

    pub(crate) fn per_row(&self) -> usize {
        self.per_row
    }
}

/// The `per_row` experts with the largest softmax of `logits`, `[rows, experts]`, and that softmax as
/// their weight. Of two experts with the same weight the first one comes first.
///
/// # Errors
/// No expert, or fewer than `per_row`; another shape or type than f32; a device this build can't use.
pub fn expert_route(logits: &Tensor, rule: RoutingRule) -> Result<Routing, KernelError> {
    let [rows, experts] = *logits.dims() else {
        return Err(shape_error(OP, "logits", &[0, rule.per_row], logits.dims()));
    };
    if rule.per_row == 0 || rule.per_row > experts {
        let (value, bound) = (rule.per_row, experts);
        return Err(KernelError::Bound { op: OP, what: "per_row", value, bound });
    }
    if place(OP, logits.device())? == Place::Cuda {
        return cuda::refuse(OP);
    }
    let mut weights = host_floats(OP, "logits", logits)?.as_slice()?.to_vec();
    run(level(), &mut weights, experts);
    Ok(plan(&weights, (rows, experts), rule))
}

/// The pairs, out of the softmax of each row.
fn plan(weights: &[f32], (rows, experts): (usize, usize), rule: RoutingRule) -> Routing {
    let per_row = rule.per_row;
    let mut chosen: Vec<(usize, f32)> = Vec::with_capacity(rows * per_row);
    let mut starts = vec![0; experts + 1];
    for weights in weights.chunks_exact(experts) {
        let first = chosen.len();
        choose(weights, per_row, &mut chosen);
        let chosen = &mut chosen[first..];
        if rule.normalised {
            let total: f32 = chosen.iter().map(|(_, weight)| weight).sum();
            chosen.iter_mut().for_each(|(_, weight)| *weight /= total);
        }
        chosen.sort_unstable_by_key(|(expert, _)| *expert);
        chosen.iter().for_each(|(expert, _)| starts[expert + 1] += 1);
    }
    for expert in 0..experts {
        starts[expert + 1] += starts[expert];
    }
    let experts = (0..experts).map(|expert| (expert, starts[expert]..starts[expert + 1]));
    let experts = experts.filter(|(_, pairs)| !pairs.is_empty()).collect();
    let mut next = starts;
    let mut rows = vec![0; chosen.len()];
    let choices = chosen.iter().enumerate().map(|(index, &(expert, weight))| {
        let position = next[expert];
        next[expert] += 1;
        rows[position] = (index / per_row) as u32;
        Choice { position: position as u32, weight }
    });
    Routing { per_row, choices: choices.collect(), rows, experts }
}

/// Appends the `count` largest weights, largest first.
fn choose(weights: &[f32], count: usize, chosen: &mut Vec<(usize, f32)>) {
    let first = chosen.len();
    for _ in 0..count {
        let free = |expert: &usize| chosen[first..].iter().all(|(taken, _)| taken != expert);
        let mut free = (0..weights.len()).filter(free);
        let mut best = free.next().expect("no more are wanted than there are");
        // A weight that is no number is never the larger one.
        free.for_each(|expert| {
            if weights[expert] > weights[best] {
                best = expert;
            }
        });
        chosen.push((best, weights[best]));
    }
}

#[cfg(test)]
mod tests;
