//! A decoder: embedding, layers, norm, head. Architectures differ in what [`ModelConfig`] says of
//! them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kernels::{
    Communicator, Embedding, KernelError, KvBlocks, KvFormat, PackedLinear, RopeTable,
    WeightFormat, add, softcap,
};
use lora::ModelShape;

use super::attention::Attention;
use super::experts::Experts;
use super::linear::Linear;
use super::loader::Loader;
use super::mlp::Mlp;
use super::norm::RmsNorm;
use super::step::Step;
use crate::device::{activations, check_device, check_format};
use crate::kv_cache::{KvPart, KvPlace};
use crate::parallel::Part;
use crate::parallel::split::{Cut, Split};
use crate::weights::Weights;
use crate::{
    BatchError, BatchLimits, CausalLm, ForwardBatch, KvCache, KvShape, LoadOptions, ModelConfig,
    ModelError, Quantization,
};

/// What a layer does to each row by itself.
#[derive(Debug)]
enum FeedForward {
    Dense(Box<Mlp>),
    Sparse(Box<Experts>),
}

impl FeedForward {
    fn load(loader: &Loader<'_>, layer: usize) -> Result<Self, ModelError> {
        let path = format!("model.layers.{layer}.mlp");
        Ok(match loader.config.experts_of(layer) {
            Some(experts) => Self::Sparse(Box::new(Experts::load(loader, &path, experts)?)),
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

/// A model, or what one rank has of it.
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
    /// What this rank has, and the others, where there are any.
    split: Split,
    ranks: Option<Arc<dyn Communicator>>,
    /// What rows are computed in.
    dtype: DType,
}

/// Embedding and head of a rank's part of the vocabulary.
fn vocabulary(loader: &Loader<'_>) -> Result<(Embedding, Arc<PackedLinear>), ModelError> {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    let table = [loader.config.vocab_size, loader.config.hidden_size];
    let outputs = vec![loader.split.vocab.clone()];
    let cut = Cut { outputs, inputs: 0..table[1], is_partial: false };
    let format = loader.options.quantization.map(Quantization::of_head);
    let head = |name| loader.packed(name, (table, &cut), (None, format)).map(Arc::new);
    if loader.config.tie_word_embeddings {
        let lm_head = head(EMBEDDING)?;
        return Ok((Embedding::tied(Arc::clone(&lm_head))?, lm_head));
    }
    let lm_head = head("lm_head.weight")?;
    let embedding = loader.part(EMBEDDING, (table, &cut), |weight| {
        Ok(Embedding::new(weight, &loader.options.device)?)
    })?;
    Ok((embedding, lm_head))
}

impl Decoder {
    /// Packs a rank's part of all weights of a checkpoint.
    pub(crate) fn load(
        config: ModelConfig,
        weights: &Weights,
        (options, part): (&LoadOptions, Part<'_>),
    ) -> Result<Self, ModelError> {
        let Part { split, shape, ranks } = part;
        let table = [config.vocab_size, config.hidden_size];
        let embedding = weights.tensor("model.embed_tokens.weight", &table)?.format();
        let dtype = activations(&config, embedding, options);
        if !options.device.is_cpu() {
            check_device(&config, (weights, options), dtype)?;
        }
        let kv_format = match (embedding, options.quantization) {
            // Devices keep keys as they are computed.
            _ if !options.device.is_cpu() && dtype == DType::F32 => KvFormat::F32,
            (WeightFormat::F32, None) => KvFormat::F32,
            _ => KvFormat::F16,
        };
        let loader = Loader { config: &config, shape, weights, options, split, ranks, dtype };
        let (embed_tokens, lm_head) = vocabulary(&loader)?;
        let mut layers = (0..config.layers)
            .map(|layer| Layer::load(&loader, layer))
            .collect::<Result<Vec<_>, _>>()?;
        Linear::link(layers.iter_mut().flat_map(Layer::groups).collect());
        let norm = loader.norm("model.norm", config.hidden_size)?;
        weights.check_all_taken()?;
        let rope = RopeTable::new(&config.rope)?;
        let local_rope = config.local_rope.as_ref().map(RopeTable::new).transpose()?;
        let device = options.device.clone();
        let (shape, split, ranks) = (shape.clone(), split.clone(), ranks.cloned());
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
            split,
            ranks,
            dtype,
        })
    }

    fn check(&self, batch: &ForwardBatch, kv: &KvPart) -> Result<(), BatchError> {
        if !kv.fits(&self.config, self.split.kv_heads.len()) {
            return Err(BatchError::KvCacheShape);
        }
        let geometry = kv.geometry();
        batch.validate(&BatchLimits {
            vocab_size: self.config.vocab_size,
            positions_max: self.config.max_position_embeddings,
            kv_blocks: geometry.blocks,
            block_tokens: geometry.block_tokens,
        })?;
        let misfit = batch
            .adapters
            .iter()
            .position(|adapter| adapter.as_ref().is_some_and(|adapter| !adapter.fits(&self.shape)));
        misfit.map_or(Ok(()), |sequence| Err(BatchError::AdapterShape { sequence }))
    }

    /// The last layer's output of every row of a batch.
    fn run(&self, batch: &ForwardBatch, kv: &mut KvPart) -> Result<(Tensor, Step), ModelError> {
        self.check(batch, kv)?;
        let ropes = (&self.rope, self.local_rope.as_ref());
        let rank = self.ranks.as_ref().map_or(0, |ranks| ranks.rank());
        let step = Step::new(batch, ropes, (&kv.geometry(), rank))?;
        let mut x = self.embed(&step.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &step, kv.layer(index))?;
        }
        Ok((x, step))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Tensor, KernelError> {
        let x = match &self.ranks {
            None => self.embed_tokens.gather(tokens)?,
            Some(ranks) => {
                ranks.all_reduce(self.embed_tokens.gather_part(tokens, self.split.vocab.start)?)?
            }
        };
        match self.config.variation.scaled_embedding {
            true => Ok(x.affine((self.config.hidden_size as f64).sqrt(), 0.0)?),
            false => Ok(x),
        }
    }

    /// Logits of some rows, on one rank.
    fn logits(&self, x: &Tensor, rows: &[u32]) -> Result<Option<Tensor>, ModelError> {
        if let Some(nothing) = self.nothing(rows, self.config.vocab_size)? {
            return Ok(Some(nothing));
        }
        let logits = self.lm_head.forward(&self.normed(x, rows)?)?;
        let logits = match self.config.variation.logits_softcap {
            Some(cap) => softcap(logits, cap)?,
            None => logits,
        };
        let logits = logits.to_dtype(DType::F32).map_err(KernelError::from)?;
        match &self.ranks {
            None => Ok(Some(logits)),
            Some(ranks) => Ok(ranks.gather(logits, &self.split.vocab_widths)?),
        }
    }

    /// Runs a batch: logits, and hidden states where they are wanted. Ranks other than the first have
    /// none.
    pub(crate) fn step(
        &self,
        batch: &ForwardBatch,
        kv: &mut KvPart,
        hidden: bool,
    ) -> Result<Option<(Tensor, Option<Tensor>)>, ModelError> {
        let (x, step) = self.run(batch, kv)?;
        let Some(logits) = self.logits(&x, &step.logits_rows)? else { return Ok(None) };
        let hidden = hidden.then(|| self.states(&x, &step.hidden_rows)).transpose()?;
        Ok(Some((logits, hidden)))
    }

    /// What is given for no rows on a device, which runs nothing over none.
    fn nothing(&self, rows: &[u32], width: usize) -> Result<Option<Tensor>, ModelError> {
        if self.device.is_cpu() || !rows.is_empty() {
            return Ok(None);
        }
        let none = Tensor::zeros((0, width), DType::F32, &Device::Cpu);
        Ok(Some(none.map_err(KernelError::from)?))
    }

    /// Hidden states of some rows, in floats.
    fn states(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
        if let Some(nothing) = self.nothing(rows, self.config.hidden_size)? {
            return Ok(nothing);
        }
        Ok(self.normed(x, rows)?.to_dtype(DType::F32).map_err(KernelError::from)?)
    }

    /// Where its keys and values are kept.
    pub(crate) fn kv_place(&self) -> KvPlace {
        let dtype = (!self.device.is_cpu()).then_some(self.dtype);
        KvPlace { kv_heads: self.split.kv_heads.len(), device: self.device.clone(), dtype }
    }

    /// [`Decoder::step`] of a model that is not divided.
    fn step_alone(
        &self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
        hidden: bool,
    ) -> Result<(Tensor, Option<Tensor>), ModelError> {
        let [part] = kv.parts().as_mut_slice() else {
            return Err(BatchError::KvCacheShape.into());
        };
        Ok(self.step(batch, part, hidden)?.expect("a rank alone has the result"))
    }

    /// Some rows of it behind the final norm.
    fn normed(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor, ModelError> {
        let width = x.dims().last().copied().unwrap_or(0);
        let all = x.dims().first() == Some(&rows.len());
        let selected = if rows.is_empty() {
            Tensor::zeros((0, width), x.dtype(), x.device())
        } else if all && rows.iter().enumerate().all(|(at, row)| at == *row as usize) {
            // Decoding wants them all: nothing is moved, and a device is told no indices.
            Ok(x.clone())
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

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, ModelError> {
        check_format(&self.config, (self.kv_format, shape.format), &self.device)?;
        KvCache::divided(&self.config, shape, &[self.kv_place()])
    }

    fn forward(&mut self, batch: &ForwardBatch, kv: &mut KvCache) -> Result<Tensor, ModelError> {
        Ok(self.step_alone(batch, kv, false)?.0)
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let (logits, hidden) = self.step_alone(batch, kv, true)?;
        Ok((logits, hidden.expect("hidden states were asked for")))
    }
}
