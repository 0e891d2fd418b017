//! The base product of a linear layer, in the form the operator chose for the weights.

use candle_core::Tensor;
use kernels::{KernelError, PackedLinear, PackedLinearQ8, WeightBytes};

use crate::{LoadOptions, Quantization};

/// `x Wᵀ + b`
#[derive(Debug)]
pub(crate) enum Product {
    /// Weights in f32.
    Float(PackedLinear),
    /// Weights in blocks of eight bits.
    Q8(PackedLinearQ8),
}

impl Product {
    pub(crate) fn pack(
        weight: WeightBytes<'_>,
        bias: Option<&[f32]>,
        options: &LoadOptions,
    ) -> Result<Self, KernelError> {
        Ok(match options.quantization {
            None => Self::Float(PackedLinear::pack(weight, bias, &options.device)?),
            Some(Quantization::Q8_0) => {
                Self::Q8(PackedLinearQ8::pack(weight, bias, &options.device)?)
            }
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        match self {
            Self::Float(linear) => linear.forward(x),
            Self::Q8(linear) => linear.forward(x),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Float(linear) => linear.bytes(),
            Self::Q8(linear) => linear.bytes(),
        }
    }
}
