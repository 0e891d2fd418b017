//! What every layer is loaded from: configuration, modules and weights under one name.

use lora::ModelShape;

use super::linear::Linear;
use super::norm::RmsNorm;
use crate::weights::Weights;
use crate::{LoadOptions, ModelConfig, ModelError};

/// A checkpoint that is being loaded.
pub(crate) struct Loader<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) shape: &'a ModelShape,
    pub(crate) weights: &'a Weights,
    pub(crate) options: &'a LoadOptions,
}

impl Loader<'_> {
    /// The linear layer at a path that the configuration's shape has.
    pub(crate) fn linear(&self, path: &str, has_bias: bool) -> Result<Linear, ModelError> {
        let index = self.shape.index_of(path).expect("the shape has every linear layer");
        Linear::load(self.weights, (index, &self.shape.modules[index]), has_bias, self.options)
    }

    /// The norm at a path.
    pub(crate) fn norm(&self, path: &str, width: usize) -> Result<RmsNorm, ModelError> {
        let eps = self.config.rms_norm_eps;
        let offset = if self.config.variation.unit_offset_norms { 1.0 } else { 0.0 };
        RmsNorm::load(self.weights, path, (width, eps, offset), &self.options.device)
    }
}
