//! What every layer is loaded from: configuration, modules and weights under one name, and which part of
//! them is wanted.

use std::sync::Arc;

use candle_core::DType;
use kernels::{Communicator, PackedLinear, WeightBytes, WeightFormat};
use lora::ModelShape;

use super::linear::Linear;
use super::norm::RmsNorm;
use crate::parallel::split::{Cut, Split};
use crate::weights::Weights;
use crate::{LoadOptions, ModelConfig, ModelError, Quantization};

/// A checkpoint that is being loaded.
pub(crate) struct Loader<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) shape: &'a ModelShape,
    pub(crate) weights: &'a Weights,
    pub(crate) options: &'a LoadOptions,
    /// The part that is wanted.
    pub(crate) split: &'a Split,
    /// The other ranks, where there are any.
    pub(crate) ranks: Option<&'a Arc<dyn Communicator>>,
    /// What rows are computed in.
    pub(crate) dtype: DType,
}

impl Loader<'_> {
    /// The linear layer at a path that the configuration's shape has.
    pub(crate) fn linear(&self, path: &str, has_bias: bool) -> Result<Linear, ModelError> {
        let index = self.shape.index_of(path).expect("the shape has every linear layer");
        let shape = &self.shape.modules[index];
        let sizes = [shape.out_features, shape.in_features];
        let cut = self.split.cut(self.config, path, sizes);
        let bias = match has_bias {
            true => Some(self.bias(&format!("{path}.bias"), sizes[0], &cut)?),
            false => None,
        };
        let base = self.product(&format!("{path}.weight"), (sizes, &cut), bias.as_deref())?;
        let ranks = self.ranks.filter(|_| cut.is_partial).cloned();
        Ok(Linear::new(base, index, ranks))
    }

    /// The rank's part of a weight in the format of layers.
    pub(crate) fn product(
        &self,
        name: &str,
        part: ([usize; 2], &Cut),
        bias: Option<&[f32]>,
    ) -> Result<PackedLinear, ModelError> {
        let format = self.options.quantization.map(Quantization::of_layers);
        self.packed(name, part, (bias, format))
    }

    /// The same in any format.
    pub(crate) fn packed(
        &self,
        name: &str,
        (sizes, cut): ([usize; 2], &Cut),
        (bias, format): (Option<&[f32]>, Option<WeightFormat>),
    ) -> Result<PackedLinear, ModelError> {
        self.part(name, (sizes, cut), |weight| {
            Ok(PackedLinear::pack(weight, bias, format, &self.options.device)?)
        })
    }

    /// What `take` makes of the rank's part of a weight.
    pub(crate) fn part<R>(
        &self,
        name: &str,
        (sizes, cut): ([usize; 2], &Cut),
        take: impl FnOnce(WeightBytes<'_>) -> Result<R, ModelError>,
    ) -> Result<R, ModelError> {
        let weight = self.weights.tensor(name, &sizes)?;
        if cut.is_whole(sizes) {
            return take(weight);
        }
        let bytes = weight.cut(&cut.outputs, cut.inputs.clone())?;
        let [rows, columns] = cut.sizes();
        take(WeightBytes::new(&bytes, weight.format(), rows, columns)?)
    }

    /// The rank's part of a bias. Where products are added up, the first rank adds it for all.
    fn bias(&self, name: &str, outputs: usize, cut: &Cut) -> Result<Vec<f32>, ModelError> {
        let whole = self.weights.vector(name, outputs)?;
        if cut.is_partial && self.ranks.is_some_and(|ranks| ranks.rank() > 0) {
            return Ok(vec![0.0; outputs]);
        }
        Ok(cut.outputs.iter().cloned().flatten().map(|output| whole[output]).collect())
    }

    /// The norm at a path.
    pub(crate) fn norm(&self, path: &str, width: usize) -> Result<RmsNorm, ModelError> {
        let eps = self.config.rms_norm_eps;
        let offset = if self.config.variation.unit_offset_norms { 1.0 } else { 0.0 };
        RmsNorm::load(self.weights, path, (width, eps, offset), (self.dtype, &self.options.device))
    }
}
