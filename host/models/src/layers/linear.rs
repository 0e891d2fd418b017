//! A linear layer of the base model, and what adapters add to it.

use candle_core::Tensor;
use kernels::{GroupMember, LinearInput, PackedLinear, linear_group};

use super::step::Step;
use crate::weights::Weights;
use crate::{LoadOptions, ModelError, Quantization};

/// `x Wᵀ + b`, plus for each segment `scale * (x Aᵀ) Bᵀ`.
#[derive(Debug)]
pub(crate) struct Linear {
    base: PackedLinear,
    /// Index of the module in the model's shape.
    module: usize,
    /// Modules that run after it, with its next input.
    next: Vec<usize>,
}

impl Linear {
    /// Packs `<path>.weight`, `[outputs, inputs]`, and where there is one `<path>.bias`.
    pub(crate) fn load(
        weights: &Weights,
        module: (usize, &lora::ModuleShape),
        has_bias: bool,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let (module, shape) = module;
        let (inputs, outputs) = (shape.in_features, shape.out_features);
        let weight = weights.tensor(&format!("{}.weight", shape.path), &[outputs, inputs])?;
        let bias = match has_bias {
            true => Some(weights.vector(&format!("{}.bias", shape.path), outputs)?),
            false => None,
        };
        let format = options.quantization.map(Quantization::of_layers);
        let base = PackedLinear::pack(weight, bias.as_deref(), format, &options.device)?;
        Ok(Self { base, module, next: Vec::new() })
    }

    /// The product for all rows, and what adapters add to theirs.
    pub(crate) fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        let [y] = Self::forward_all([self], x, step)?;
        Ok(y)
    }

    /// Several products of the same rows, in fewer rounds than one after another.
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
