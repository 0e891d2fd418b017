//! A linear layer of the base model, and what adapters add to it.

use std::sync::Arc;

use candle_core::Tensor;
use kernels::{Communicator, GroupMember, LinearInput, PackedLinear, linear_group};

use super::step::Step;
use crate::ModelError;

/// `x Wᵀ + b`, plus for each segment `scale * (x Aᵀ) Bᵀ`.
#[derive(Debug)]
pub(crate) struct Linear {
    base: PackedLinear,
    /// Index of the module in the model's shape.
    module: usize,
    /// Modules that run after it, with its next input.
    next: Vec<usize>,
    /// Whose products are added up: each has some of the inputs.
    ranks: Option<Arc<dyn Communicator>>,
}

impl Linear {
    pub(crate) fn new(
        base: PackedLinear,
        module: usize,
        ranks: Option<Arc<dyn Communicator>>,
    ) -> Self {
        Self { base, module, next: Vec::new(), ranks }
    }

    /// The product for all rows, and what adapters add to theirs.
    pub(crate) fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        let [y] = Self::forward_all([self], x, step)?;
        match &self.ranks {
            // An adapter's part of the inputs gives its part of the product, so one sum serves both.
            Some(ranks) => Ok(ranks.all_reduce(y)?),
            None => Ok(y),
        }
    }

    /// Several products of the same rows, in fewer rounds than one after another; of layers that are not
    /// added up over ranks.
    pub(crate) fn forward_all<const N: usize>(
        linears: [&Self; N],
        x: &Tensor,
        step: &Step,
    ) -> Result<[Tensor; N], ModelError> {
        let members = linears.map(|linear| GroupMember {
            linear: &linear.base,
            segments: step.segments(linear.module),
        });
        let next = linears.last().map_or_else(Vec::new, |linear| step.pairs(&linear.next));
        let outputs = linear_group(&LinearInput::new(x), &members, &next)?;
        Ok(outputs.try_into().expect("an output per member"))
    }

    /// Tells each of these groups, in the order in which they run, which comes after.
    pub(crate) fn link(groups: Vec<Vec<&mut Self>>) {
        let mut next = Vec::new();
        for group in groups.into_iter().rev() {
            let modules = group.iter().map(|linear| linear.module).collect();
            group.into_iter().for_each(|linear| linear.next.clone_from(&next));
            next = modules;
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.base.bytes()
    }
}
