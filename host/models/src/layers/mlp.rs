//! The gated MLP: `down(silu(gate(x)) * up(x))`.

use candle_core::Tensor;
use kernels::silu_mul;
use lora::ModelShape;

use super::linear::Linear;
use super::step::Step;
use crate::weights::Weights;
use crate::{LoadOptions, ModelConfig, ModelError};

#[derive(Debug)]
pub(crate) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    /// Loads `mlp` of a layer; `module` is the index of its first module in `shape`.
    pub(crate) fn load(
        config: &ModelConfig,
        weights: &Weights,
        (shape, module): (&ModelShape, usize),
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let linear = |index: usize| {
            let index = module + index;
            Linear::load(weights, (index, &shape.modules[index]), config.mlp_bias, options)
        };
        Ok(Self { gate_proj: linear(0)?, up_proj: linear(1)?, down_proj: linear(2)? })
    }

    pub(crate) fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], x, step)?;
        self.down_proj.forward(&silu_mul(&gate, &up)?, step)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.gate_proj.bytes() + self.up_proj.bytes() + self.down_proj.bytes()
    }
}
