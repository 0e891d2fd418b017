//! A decoder: embedding, layers, norm, head. Architectures differ in what [`ModelConfig`] says of
//! them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::{
    Embedding, KernelError, KvBlocks, KvFormat, PackedLinear, RopeTable, WeightFormat, add, softcap,
};
use lora::ModelShape;

use super::attention::Attention;
use super::experts::Experts;
use super::linear::Linear;
use super::loader::Loader;
use super::mlp::Mlp;
use super::norm::RmsNorm;
use super::step::Step;
use crate::weights::Weights;
use crate::{
    BatchError, BatchLimits, CausalLm, ForwardBatch, KvCache, LoadOptions, ModelConfig, ModelError,
    Quantization,
};

/// What a layer does to each row by itself.
#[derive(Debug)]
enum FeedForward {
    Dense(Box<Mlp>),
    Sparse(Experts),
}

impl FeedForward {
    fn load(loader: &Loader<'_>, layer: usize) -> Result<Self, ModelError> {
        let path = format!("model.layers.{layer}.mlp");
        Ok(match loader.config.experts_of(layer) {
            Some(experts) => Self::Sparse(Experts::load(loader, &path, experts)?),
            None => Self::Dense(Box::new(Mlp::load(loader, &path)?)),
        })
    }

    fn forward(&self, x: &Tensor, step: &Step) -> Result<Tensor, ModelError> {
        match self {
            Self::Dense(mlp) => mlp.forward(x, step),
            Self::Sparse(experts) => experts.forward(x),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Dense(mlp) => mlp.bytes(),
            Self::Sparse(experts) => experts.bytes(),
        }
    }
}

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    self_attn: Attention,
    attention_output_norm: Option<RmsNorm>,
    mlp_norm: RmsNorm,
    mlp: FeedForward,
    mlp_output_norm: Option<RmsNorm>,
}

impl Layer {
    fn load(loader: &Loader<'_>, layer: usize) -> Result<Self, ModelError> {
        let path = format!("model.layers.{layer}");
        let norm = |name: &str| loader.norm(&format!("{path}.{name}"), loader.config.hidden_size);
        // Without norms of outputs, what comes after attention is the MLP's own.
        const AFTER_ATTENTION: &str = "post_attention_layernorm";
        let (attention_output_norm, mlp_norm, mlp_output_norm) =
            match loader.config.variation.output_norms {
                false => (None, norm(AFTER_ATTENTION)?, None),
                true => (
                    Some(norm(AFTER_ATTENTION)?),
                    norm("pre_feedforward_layernorm")?,
                    Some(norm("post_feedforward_layernorm")?),
                ),
            };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            self_attn: Attention::load(loader, layer)?,
            attention_output_norm,
            mlp_norm,
            mlp: FeedForward::load(loader, layer)?,
            mlp_output_norm,
        })
    }

    fn forward(&self, x: Tensor, step: &Step, kv: &mut KvBlocks) -> Result<Tensor, ModelError> {
        let attended = self.self_attn.forward(&self.input_norm.forward(&x)?, step, kv)?;
        let x = add_output(x, attended, self.attention_output_norm.as_ref())?;
        let mixed = self.mlp.forward(&self.mlp_norm.forward(&x)?, step)?;
        add_output(x, mixed, self.mlp_output_norm.as_ref())
    }

    /// Its linear layers that adapters may change, in the order in which they run.
    fn groups(&mut self) -> Vec<Vec<&mut Linear>> {
        let mut groups = Vec::from(self.self_attn.groups());
        if let FeedForward::Dense(mlp) = &mut self.mlp {
            groups.extend(mlp.groups());
        }
        groups
    }

    fn bytes(&self) -> usize {
        let norms = [Some(&self.input_norm), Some(&self.mlp_norm)].into_iter();
        let outputs = [self.attention_output_norm.as_ref(), self.mlp_output_norm.as_ref()];
        let norms: usize = norms.chain(outputs).flatten().map(RmsNorm::bytes).sum();
        norms + self.self_attn.bytes() + self.mlp.bytes()
    }
}

/// `x + y`, with `y` normed first where there is a norm.
fn add_output(x: Tensor, y: Tensor, norm: Option<&RmsNorm>) -> Result<Tensor, ModelError> {
    let y = match norm {
        Some(norm) => norm.forward(&y)?,
        None => y,
    };
    Ok(add(x, &y)?)
}

/// A model.
#[derive(Debug)]
pub(crate) struct Decoder {
    config: ModelConfig,
    shape: ModelShape,
    device: Device,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// Hidden states to logits; the embedding reads out of it where they are tied.
    lm_head: Arc<PackedLinear>,
    rope: RopeTable,
    /// Rope of the layers with a window, where it is another.
    local_rope: Option<RopeTable>,
    kv_format: KvFormat,
}

impl Decoder {
    /// Packs all weights of a checkpoint.
    pub(crate) fn load(
        config: ModelConfig,
        weights: &Weights,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        const EMBEDDING: &str = "model.embed_tokens.weight";
        let device = &options.device;
        let shape = config.model_shape();
        let table = [config.vocab_size, config.hidden_size];
        let embedding = weights.tensor(EMBEDDING, &table)?;
        let format = options.quantization.map(Quantization::of_head);
        let pack = |weight| PackedLinear::pack(weight, None, format, device).map(Arc::new);
        let kv_format = match (embedding.format(), options.quantization) {
            (WeightFormat::F32, None) => KvFormat::F32,
            _ => KvFormat::F16,
        };
        let (embed_tokens, lm_head) = if config.tie_word_embeddings {
            let lm_head = pack(embedding)?;
            (Embedding::tied(Arc::clone(&lm_head)), lm_head)
        } else {
            let lm_head = pack(weights.tensor("lm_head.weight", &table)?)?;
            (Embedding::new(embedding, device)?, lm_head)
        };
        let loader = Loader { config: &config, shape: &shape, weights, options };
        let mut layers = (0..config.layers)
            .map(|layer| Layer::load(&loader, layer))
            .collect::<Result<Vec<_>, _>>()?;
        Linear::link(layers.iter_mut().flat_map(Layer::groups).collect());
        let norm = loader.norm("model.norm", config.hidden_size)?;
        weights.check_all_taken()?;
        let rope = RopeTable::new(&config.rope)?;
        let local_rope = config.local_rope.as_ref().map(RopeTable::new).transpose()?;
        let device = device.clone();
        Ok(Self {
            config,
            shape,
            device,
            embed_tokens,
            layers,
            norm,
            lm_head,
            rope,
            local_rope,
            kv_format,
        })
    }

    fn check(&self, batch: &ForwardBatch, kv: &KvCache) -> Result<(), BatchError> {
        if !kv.fits(&self.config) {
            return Err(BatchError::KvCacheShape);
        }
        batch.validate(&BatchLimits {
            vocab_size: self.config.vocab_size,
            positions_max: self.config.max_position_embeddings,
            kv_blocks: kv.kv_blocks(),
            block_tokens: kv.block_tokens(),
        })?;
        let misfit = batch
            .adapters
            .iter()
            .position(|adapter| adapter.as_ref().is_some_and(|adapter| !adapter.fits(&self.shape)));
        misfit.map_or(Ok(()), |sequence| Err(BatchError::AdapterShape { sequence }))
    }

    /// The last layer's output of every row of a batch.
    fn run(&self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<(Tensor, Step), ModelError> {
        self.check(batch, kv)?;
        let ropes = (&self.rope, self.local_rope.as_ref());
        let step = Step::new(batch, ropes, &kv.geometry())?;
        let mut x = self.embed(&step.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &step, kv.layer(index))?;
        }
        Ok((x, step))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Tensor, KernelError> {
        let x = self.embed_tokens.gather(tokens)?;
        match self.config.variation.scaled_embedding {
            true => Ok(x.affine((self.config.hidden_size as f64).sqrt(), 0.0)?),
            false => Ok(x),
        }
    }

    fn logits(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
        let logits = self.lm_head.forward(&self.normed(x, rows)?)?;
        Ok(match self.config.variation.logits_softcap {
            Some(cap) => softcap(logits, cap)?,
            None => logits,
        })
    }

    /// Some rows of it behind the final norm.
    fn normed(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
        let width = x.dims().last().copied().unwrap_or(0);
        let selected = if rows.is_empty() {
            Tensor::zeros((0, width), x.dtype(), x.device())
        } else {
            Tensor::new(rows, x.device()).and_then(|rows| x.index_select(&rows, 0))
        };
        let selected = selected.map_err(KernelError::from)?;
        self.norm.forward(&selected)
    }
}

impl CausalLm for Decoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn kv_format(&self) -> KvFormat {
        self.kv_format
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn weights_bytes(&self) -> u64 {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        let rest = self.embed_tokens.bytes() + self.norm.bytes() + self.lm_head.bytes();
        (layers + rest) as u64
    }

    fn forward(&mut self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<Tensor, ModelError> {
        let (x, step) = self.run(batch, kv)?;
        self.logits(&x, &step.logits_rows)
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let (x, step) = self.run(batch, kv)?;
        Ok((self.logits(&x, &step.logits_rows)?, self.normed(&x, &step.hidden_rows)?))
    }
}
