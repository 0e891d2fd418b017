//! A linear layer of the base model, and what adapters add to it.

use candle_core::Tensor;
use kernels::{lora_expand, lora_shrink};

use super::product::Product;
use super::step::Step;
use crate::weights::Weights;
use crate::{LoadOptions, ModelError};

/// `x Wᵀ + b`, plus for each segment `scale * (x Aᵀ) Bᵀ`.
#[derive(Debug)]
pub(crate) struct Linear {
    base: Product,
    /// Index of the module in the model's shape.
    module: usize,
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
        Ok(Self { base: Product::pack(weight, bias.as_deref(), options)?, module })
    }

    /// The base product once for all rows, then one shrink and one expand for all segments.
    pub(crate) fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        let y = self.base.forward(x)?;
        let segments = step.segments(self.module);
        if segments.is_empty() {
            return Ok(y);
        }
        let hidden = lora_shrink(x, &segments)?;
        Ok(lora_expand(y, &hidden, &segments)?)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.base.bytes()
    }
}
