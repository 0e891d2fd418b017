//! Self-attention over paged keys and values.

use candle_core::Tensor;
use kernels::{AttentionShape, KernelError, KvBlocks, kv_write, paged_attention, rope};
use lora::ModelShape;

use super::linear::Linear;
use super::norm::RmsNorm;
use super::step::Step;
use crate::weights::Weights;
use crate::{LoadOptions, ModelConfig, ModelError};

#[derive(Debug)]
pub(crate) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Norms of queries and keys, per head.
    norms: Option<(RmsNorm, RmsNorm)>,
    shape: AttentionShape,
    head_dim: usize,
}

impl Attention {
    /// Loads `self_attn` of a layer; `module` is the index of its first module in `shape`.
    pub(crate) fn load(
        config: &ModelConfig,
        weights: &Weights,
        (shape, module, layer): (&ModelShape, usize, usize),
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let linear = |index: usize, has_bias: bool| {
            let index = module + index;
            Linear::load(weights, (index, &shape.modules[index]), has_bias, options)
        };
        let norm = |name: &str| {
            let path = format!("model.layers.{layer}.self_attn.{name}");
            RmsNorm::load(weights, &path, (config.head_dim, config.rms_norm_eps), &options.device)
        };
        Ok(Self {
            q_proj: linear(0, config.qkv_bias)?,
            k_proj: linear(1, config.qkv_bias)?,
            v_proj: linear(2, config.qkv_bias)?,
            o_proj: linear(3, config.output_bias)?,
            norms: match config.qk_norm {
                true => Some((norm("q_norm")?, norm("k_norm")?)),
                false => None,
            },
            shape: AttentionShape {
                heads: config.heads,
                window: config.sliding_windows[layer],
                scale: 1.0 / (config.head_dim as f32).sqrt(),
            },
            head_dim: config.head_dim,
        })
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        step: &Step,
        kv: &mut KvBlocks,
    ) -> Result<Tensor, ModelError> {
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [mut q, mut k, v] = Linear::forward_all(projections, x, step)?;
        if let Some((q_norm, k_norm)) = &self.norms {
            q = self.norm_heads(q_norm, &q)?;
            k = self.norm_heads(k_norm, &k)?;
        }
        let (q, k) = (rope(q, &step.angles)?, rope(k, &step.angles)?);
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

    pub(crate) fn bytes(&self) -> usize {
        let linears = [&self.q_proj, &self.k_proj, &self.v_proj, &self.o_proj];
        let norms = self.norms.as_ref().map_or(0, |(q, k)| q.bytes() + k.bytes());
        linears.into_iter().map(Linear::bytes).sum::<usize>() + norms
    }
}
