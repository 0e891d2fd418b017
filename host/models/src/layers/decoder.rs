//! A decoder: embedding, layers, norm, head. Architectures differ in what [`ModelConfig`] says of
//! them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::{
    Embedding, KernelError, KvBlocks, KvFormat, PackedLinear, RopeTable, WeightFormat, add,
};
use lora::ModelShape;

use super::attention::Attention;
use super::mlp::Mlp;
use super::norm::RmsNorm;
use super::step::Step;
use crate::config::LAYER_MODULES;
use crate::weights::Weights;
use crate::{
    BatchError, BatchLimits, CausalLm, ForwardBatch, KvCache, LoadOptions, ModelConfig, ModelError,
    Quantization,
};

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn load(
        config: &ModelConfig,
        weights: &Weights,
        (shape, layer): (&ModelShape, usize),
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let norm = |name: &str| {
            let path = format!("model.layers.{layer}.{name}");
            RmsNorm::load(
                weights,
                &path,
                (config.hidden_size, config.rms_norm_eps),
                &options.device,
            )
        };
        let module = layer * LAYER_MODULES.len();
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, weights, (shape, module, layer), options)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            // Its modules follow the four of attention.
            mlp: Mlp::load(config, weights, (shape, module + 4), options)?,
        })
    }

    fn forward(&self, x: Tensor, step: &Step, kv: &mut KvBlocks) -> Result<Tensor, ModelError> {
        let attended = self.self_attn.forward(&self.input_layernorm.forward(&x)?, step, kv)?;
        let x = add(x, &attended)?;
        let mixed = self.mlp.forward(&self.post_attention_layernorm.forward(&x)?, step)?;
        Ok(add(x, &mixed)?)
    }

    fn bytes(&self) -> usize {
        let norms = self.input_layernorm.bytes() + self.post_attention_layernorm.bytes();
        norms + self.self_attn.bytes() + self.mlp.bytes()
    }
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
        let layers = (0..config.layers)
            .map(|layer| Layer::load(&config, weights, (&shape, layer), options))
            .collect::<Result<Vec<_>, _>>()?;
        let sizes = (config.hidden_size, config.rms_norm_eps);
        let norm = RmsNorm::load(weights, "model.norm", sizes, device)?;
        weights.check_all_taken()?;
        let rope = RopeTable::new(&config.rope)?;
        let device = device.clone();
        Ok(Self { config, shape, device, embed_tokens, layers, norm, lm_head, rope, kv_format })
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
        let step = Step::new(batch, &self.rope, &kv.geometry())?;
        let mut x = self.embed_tokens.gather(&step.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &step, kv.layer(index))?;
        }
        Ok((x, step))
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
        Ok(self.lm_head.forward(&self.normed(&x, &step.logits_rows)?)?)
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let (x, step) = self.run(batch, kv)?;
        let logits = self.lm_head.forward(&self.normed(&x, &step.logits_rows)?)?;
        Ok((logits, self.normed(&x, &step.hidden_rows)?))
    }
}
