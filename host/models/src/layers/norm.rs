//! Root-mean-square norm with a weight.

use candle_core::{DType, Device, Tensor};
use kernels::rms_norm;

use crate::ModelError;
use crate::weights::Weights;

#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Loads `<path>.weight` and adds `offset` to it.
    pub(crate) fn load(
        weights: &Weights,
        path: &str,
        (width, eps, offset): (usize, f32, f32),
        (dtype, device): (DType, &Device),
    ) -> Result<Self, ModelError> {
        let mut weight = weights.vector(&format!("{path}.weight"), width)?;
        weight.iter_mut().for_each(|weight| *weight += offset);
        let weight = Tensor::from_vec(weight, width, device)
            .and_then(|weight| weight.to_dtype(dtype))
            .map_err(kernels::KernelError::from)?;
        Ok(Self { weight, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(rms_norm(x, &self.weight, self.eps)?)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.elem_count() * self.weight.dtype().size_in_bytes()
    }
}
