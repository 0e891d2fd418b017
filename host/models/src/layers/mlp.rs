//! The gated MLP: `down(activation(gate(x)) * up(x))`.

use candle_core::Tensor;
use kernels::{KernelError, gelu_mul, silu_mul};

use super::fused::split;
use super::linear::Linear;
use super::loader::Loader;
use super::step::Step;
use crate::ModelError;
use crate::config::Activation;

#[derive(Debug)]
enum Projections {
    /// Gate and up.
    Separate(Box<[Linear; 2]>),
    Fused(Box<Linear>),
}

#[derive(Debug)]
pub(crate) struct Mlp {
    projections: Projections,
    down_proj: Linear,
    activation: Activation,
    /// Width between the projections.
    inner: usize,
}

impl Mlp {
    /// Loads the MLP at `path`.
    pub(crate) fn load(loader: &Loader<'_>, path: &str) -> Result<Self, ModelError> {
        let variation = &loader.config.variation;
        let linear = |name: &str| loader.linear(&format!("{path}.{name}"), variation.mlp_bias);
        let projections = match variation.fused_projections {
            true => Projections::Fused(Box::new(linear("gate_up_proj")?)),
            false => Projections::Separate(Box::new([linear("gate_proj")?, linear("up_proj")?])),
        };
        let inner = loader.split.inner.len();
        let (down_proj, activation) = (linear("down_proj")?, variation.activation);
        Ok(Self { projections, down_proj, activation, inner })
    }

    pub(crate) fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        let [gate, up] = match &self.projections {
            Projections::Separate(both) => Linear::forward_all(both.each_ref(), x, step)?,
            Projections::Fused(both) => split(&both.forward(x, step)?, [self.inner; 2])?,
        };
        self.down_proj.forward(&activate(self.activation, &gate, &up)?, step)
    }

    /// Its linear layers, those of the same input together, in the order in which they run.
    pub(crate) fn groups(&mut self) -> [Vec<&mut Linear>; 2] {
        let first = match &mut self.projections {
            Projections::Separate(both) => both.iter_mut().collect(),
            Projections::Fused(both) => vec![both.as_mut()],
        };
        [first, vec![&mut self.down_proj]]
    }

    pub(crate) fn bytes(&self) -> usize {
        let projections = match &self.projections {
            Projections::Separate(both) => both.iter().map(Linear::bytes).sum(),
            Projections::Fused(both) => both.bytes(),
        };
        projections + self.down_proj.bytes()
    }
}

/// The activation of `gate`, times `up`.
pub(super) fn activate(
    activation: Activation,
    gate: &Tensor,
    up: &Tensor,
) -> Result<Tensor, KernelError> {
    match activation {
        Activation::Silu => silu_mul(gate, up),
        Activation::GeluTanh => gelu_mul(gate, up),
    }
}
