//! Self-attention over paged keys and values.

use candle_core::Tensor;
use kernels::{AttentionShape, KernelError, KvBlocks, kv_write, paged_attention, rope};

use super::fused::split;
use super::linear::Linear;
use super::loader::Loader;
use super::norm::RmsNorm;
use super::step::Step;
use crate::ModelError;

#[derive(Debug)]
enum Projections {
    /// Queries, keys and values.
    Separate(Box<[Linear; 3]>),
    Fused {
        qkv: Box<Linear>,
        widths: [usize; 3],
    },
}

impl Projections {
    fn load(loader: &Loader<'_>, path: &str) -> Result<Self, ModelError> {
        let config = loader.config;
        let linear =
            |name: &str| loader.linear(&format!("{path}.{name}"), config.variation.qkv_bias);
        Ok(match config.variation.fused_projections {
            true => {
                let kv = loader.split.kv_heads.len() * config.head_dim;
                let widths = [loader.split.heads.len() * config.head_dim, kv, kv];
                Self::Fused { qkv: Box::new(linear("qkv_proj")?), widths }
            }
            false => {
                Self::Separate(Box::new([linear("q_proj")?, linear("k_proj")?, linear("v_proj")?]))
            }
        })
    }

    fn forward(&self, x: &Tensor, step: &Step) -> Result<[Tensor; 3], ModelError> {
        match self {
            Self::Separate(linears) => Linear::forward_all(linears.each_ref(), x, step),
            Self::Fused { qkv, widths } => Ok(split(&qkv.forward(x, step)?, *widths)?),
        }
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::Separate(linears) => linears.iter_mut().collect(),
            Self::Fused { qkv, .. } => vec![qkv.as_mut()],
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Separate(linears) => linears.iter().map(Linear::bytes).sum(),
            Self::Fused { qkv, .. } => qkv.bytes(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Attention {
    projections: Projections,
    o_proj: Linear,
    /// Norms of queries and keys, per head.
    norms: Option<(RmsNorm, RmsNorm)>,
    shape: AttentionShape,
    head_dim: usize,
    /// Whether the layer has the rope of layers with a window.
    local: bool,
}

impl Attention {
    /// Loads `self_attn` of a layer.
    pub(crate) fn load(loader: &Loader<'_>, layer: usize) -> Result<Self, ModelError> {
        let config = loader.config;
        let path = format!("model.layers.{layer}.self_attn");
        let norm = |name: &str| loader.norm(&format!("{path}.{name}"), config.head_dim);
        let scale = config.variation.attention_scale;
        Ok(Self {
            projections: Projections::load(loader, &path)?,
            o_proj: loader.linear(&format!("{path}.o_proj"), config.variation.output_bias)?,
            norms: match config.variation.qk_norm {
                true => Some((norm("q_norm")?, norm("k_norm")?)),
                false => None,
            },
            shape: AttentionShape {
                heads: loader.split.heads.len(),
                window: config.sliding_windows[layer],
                scale: scale.unwrap_or(1.0 / (config.head_dim as f32).sqrt()),
                softcap: config.variation.attention_softcap,
            },
            head_dim: config.head_dim,
            local: config.local_rope.is_some() && config.sliding_windows[layer].is_some(),
        })
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        step: &Step,
        kv: &mut KvBlocks,
    ) -> Result<Tensor, ModelError> {
        let [mut q, mut k, v] = self.projections.forward(x, step)?;
        if let Some((q_norm, k_norm)) = &self.norms {
            q = self.norm_heads(q_norm, &q)?;
            k = self.norm_heads(k_norm, &k)?;
        }
        let angles = step.angles(self.local);
        let (q, k) = (rope(q, angles)?, rope(k, angles)?);
        kv_write(&k, &v, &step.plan, kv)?;
        let y = paged_attention(&q, kv, &step.plan, &self.shape)?;
        self.o_proj.forward(&y, step)
    }

    fn norm_heads(&self, norm: &RmsNorm, x: &Tensor) -> Result<Tensor, ModelError> {
        let (rows, width) = x.dims2().map_err(KernelError::from)?;
        let heads = x.reshape((rows, width / self.head_dim, self.head_dim));
        let normed = norm.forward(&heads.map_err(KernelError::from)?)?;
        Ok(normed.reshape((rows, width)).map_err(KernelError::from)?)
    }

    /// Its linear layers, those of the same input together, in the order in which they run.
    pub(crate) fn groups(&mut self) -> [Vec<&mut Linear>; 2] {
        [self.projections.linears(), vec![&mut self.o_proj]]
    }

    pub(crate) fn bytes(&self) -> usize {
        let norms = self.norms.as_ref().map_or(0, |(q, k)| q.bytes() + k.bytes());
        self.projections.bytes() + self.o_proj.bytes() + norms
    }
}
