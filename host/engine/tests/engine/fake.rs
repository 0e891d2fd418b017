//! A model that computes nothing: its logits are a formula of token and position, and it can be made
//! to wait, to fail, to panic and to give what is no number.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use candle_core::{Device, Tensor};
use engine::{
    Engine, EngineConfig, EngineError, EngineEvent, EngineHandle, EngineRequest, LogitsPlace,
    OutputStream,
};
use models::{BatchError, CausalLm, ForwardBatch, KvCache, KvFormat, ModelConfig, ModelError};
use request::{FinishReason, SamplingParams, TokenId, TokenLogprob, Usage};

/// A forward with this token in it fails. It and the next two are never the likeliest.
pub(crate) const FAILS: TokenId = 301;
/// A forward with this token in it panics.
pub(crate) const PANICS: TokenId = 302;
/// A row of this token has no number for a logit.
pub(crate) const NOT_A_NUMBER: TokenId = 303;
/// The model's own end token.
pub(crate) const END: TokenId = 2;

/// Holds the model at the beginning of each forward.
pub(crate) struct Gate {
    entered: Receiver<()>,
    release: Sender<()>,
}

impl Gate {
    /// Waits until the model is in a forward.
    pub(crate) fn wait(&self) {
        self.entered.recv().unwrap();
    }

    /// Lets the forward it is in go on.
    pub(crate) fn step(&self) {
        self.release.send(()).unwrap();
    }
}

struct Fake {
    config: ModelConfig,
    device: Device,
    gate: Option<(Sender<()>, Receiver<()>)>,
}

/// Logits of the row of `token` at `position`.
pub(crate) fn logits(token: TokenId, position: u32, vocab_size: usize) -> Vec<f32> {
    let value = |id: usize| ((token as usize * 31 + position as usize * 17 + id * 7) % 101) as f32;
    (0..vocab_size).map(|id| value(id) / 10.0).collect()
}

/// Hidden state of the row of `token`.
pub(crate) fn hidden(token: TokenId, width: usize) -> Vec<f32> {
    (0..width).map(|at| (token as f32 + 0.1) * (at as f32 + 0.3)).collect()
}

/// The token a greedy continuation has behind `token` at `position`.
pub(crate) fn likeliest(token: TokenId, position: u32, vocab_size: usize) -> TokenId {
    let row = logits(token, position, vocab_size);
    let mut best = 0;
    for (id, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = id;
        }
    }
    best as TokenId
}

impl CausalLm for Fake {
    fn kv_format(&self) -> KvFormat {
        KvFormat::F32
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn weights_bytes(&self) -> u64 {
        0
    }

    fn forward(&mut self, batch: &ForwardBatch, _: &mut KvCache) -> Result<Tensor, ModelError> {
        if let Some((entered, release)) = &self.gate {
            // Without a gate any more, the model runs.
            let _ = entered.send(());
            let _ = release.recv();
        }
        assert!(!batch.tokens.contains(&PANICS), "a panic was asked for");
        if batch.tokens.contains(&FAILS) {
            return Err(ModelError::Batch(BatchError::KvCacheShape));
        }
        let mut rows = Vec::new();
        for &row in &batch.logits_rows {
            let (token, position) = (batch.tokens[row as usize], batch.positions[row as usize]);
            let mut values = logits(token, position, self.config.vocab_size);
            if token == NOT_A_NUMBER {
                values[3] = f32::NAN;
            }
            rows.extend(values);
        }
        let shape = (batch.logits_rows.len(), self.config.vocab_size);
        Ok(Tensor::from_vec(rows, shape, &self.device).unwrap())
    }

    fn forward_hidden(
        &mut self,
        batch: &ForwardBatch,
        kv: &mut KvCache,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let logits = self.forward(batch, kv)?;
        let of = |row: &u32| hidden(batch.tokens[*row as usize], self.config.hidden_size);
        let rows: Vec<f32> = batch.hidden_rows.iter().flat_map(of).collect();
        let shape = (batch.hidden_rows.len(), self.config.hidden_size);
        Ok((logits, Tensor::from_vec(rows, shape, &self.device).unwrap()))
    }
}

/// Folder of a fixture.
pub(crate) fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(name)
}

/// The fake's vocabulary and limits.
pub(crate) fn model_config() -> ModelConfig {
    let config = ModelConfig::from_dir(&fixture("llama")).unwrap();
    ModelConfig { eos_token_ids: vec![END], ..config }
}

/// An engine around a fake that never waits.
pub(crate) fn start(config: EngineConfig) -> EngineHandle {
    try_start(config).unwrap()
}

/// The same, its logits reached as `place` has it.
pub(crate) fn start_fake_at(place: Arc<dyn LogitsPlace>, config: EngineConfig) -> EngineHandle {
    let fake = Fake { config: model_config(), device: Device::Cpu, gate: None };
    Engine::start_at(Box::new(fake), place, config).unwrap()
}

/// An engine around a fake that never waits, if the settings can be.
pub(crate) fn try_start(config: EngineConfig) -> Result<EngineHandle, EngineError> {
    let fake = Fake { config: model_config(), device: Device::Cpu, gate: None };
    Engine::start(Box::new(fake), config)
}

/// An engine whose every step the test lets through.
pub(crate) fn start_gated(config: EngineConfig) -> (EngineHandle, Gate) {
    let (entering, entered) = channel();
    let (release, released) = channel();
    let gate = Some((entering, released));
    let fake = Fake { config: model_config(), device: Device::Cpu, gate };
    (Engine::start(Box::new(fake), config).unwrap(), Gate { entered, release })
}

/// Greedy, ended by `max_tokens` alone.
pub(crate) fn greedy(max_tokens: u32) -> SamplingParams {
    SamplingParams { temperature: 0.0, max_tokens, ignore_eos: true, ..SamplingParams::default() }
}

/// A request of nobody in particular.
pub(crate) fn request(
    prompt: Vec<TokenId>,
    sampling: SamplingParams,
    adapter: Option<Arc<lora::Adapter>>,
) -> EngineRequest {
    EngineRequest {
        prompt,
        sampling,
        adapter,
        cache_salt: String::new(),
        tenant: String::new(),
        priority: 0,
        start_within: None,
    }
}

/// A request without an adapter.
pub(crate) fn ask(prompt: &[TokenId], sampling: SamplingParams) -> EngineRequest {
    request(prompt.to_vec(), sampling, None)
}

/// All that a stream said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) logprobs: Vec<Option<TokenLogprob>>,
    /// What ended it as a stop.
    pub(crate) stop: Option<(TokenId, TokenLogprob)>,
    pub(crate) prompt: Option<Vec<Option<TokenLogprob>>>,
    pub(crate) pooled: Option<Vec<f32>>,
    pub(crate) end: Option<(FinishReason, Usage)>,
    pub(crate) failed: Option<String>,
    pub(crate) expired: Option<Duration>,
}

/// Reads a stream to its end.
pub(crate) async fn read(mut stream: OutputStream) -> Said {
    let mut said = Said::default();
    while let Some(event) = stream.next().await {
        assert!(said.end.is_none() && said.failed.is_none(), "an event after the last");
        match event {
            EngineEvent::PromptLogprobs(logprobs) => said.prompt = Some(logprobs),
            EngineEvent::Token { id, logprob } => {
                said.tokens.push(id);
                said.logprobs.push(logprob);
            }
            EngineEvent::Stop { id, logprob } => said.stop = Some((id, logprob)),
            EngineEvent::Finished { reason, usage } => said.end = Some((reason, usage)),
            EngineEvent::Pooled(mean) => said.pooled = Some(mean),
            EngineEvent::Failed { message } => said.failed = Some(message),
            EngineEvent::Expired { waited } => said.expired = Some(waited),
        }
    }
    said
}
