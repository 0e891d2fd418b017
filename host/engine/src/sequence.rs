//! What a request keeps while it runs: its tokens, its counts, and the way back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use lora::Adapter;
use models::ModelConfig;
use request::{Digest, FinishReason, SamplingParams, TokenId, TokenLogprob, Usage};
use tokio::sync::mpsc;

use crate::command::Job;
use crate::stream::EngineEvent;

/// A request between its arrival and its end.
pub(crate) struct Sequence {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampling: SamplingParams,
    pub(crate) adapter: Option<Arc<Adapter>>,
    /// How often each token stands in the answer.
    pub(crate) output_counts: HashMap<TokenId, u32>,
    /// Tokens of the answer so far.
    pub(crate) output_tokens: u32,
    /// Tokens that end the answer.
    pub(crate) end_tokens: Vec<TokenId>,
    pub(crate) arrived: Instant,
    /// When the last token was sampled.
    pub(crate) last_token: Option<Instant>,
    /// Log probabilities of the prompt found so far; filled by position.
    pub(crate) prompt_logprobs: Vec<Option<TokenLogprob>>,
    /// Log probability of the token that was sampled last and not told yet.
    pub(crate) pending_logprob: Option<TokenLogprob>,
    prompt_logprobs_sent: bool,
    cached_tokens: Option<usize>,
    /// Where the stream reads it.
    told: Arc<AtomicU32>,
    cache_salt: String,
    sender: mpsc::Sender<EngineEvent>,
}

impl Sequence {
    pub(crate) fn new(job: Job, model: &ModelConfig) -> Self {
        let Job { request, sender, cached_tokens: told, arrived } = job;
        let mut end_tokens = request.sampling.stop_token_ids.clone();
        if !request.sampling.ignore_eos {
            end_tokens.extend_from_slice(&model.eos_token_ids);
        }
        Self {
            prompt_logprobs: Vec::new(),
            prompt: request.prompt,
            sampling: request.sampling,
            adapter: request.adapter,
            output_counts: HashMap::new(),
            output_tokens: 0,
            end_tokens,
            arrived,
            last_token: None,
            pending_logprob: None,
            prompt_logprobs_sent: false,
            cached_tokens: None,
            told,
            cache_salt: request.cache_salt,
            sender,
        }
    }

    /// Root of the sequence's prefix hashes.
    pub(crate) fn cache_key(&self) -> [u8; 32] {
        let generation = self.adapter.as_ref().map(|adapter| adapter.generation().0.0);
        let generation = generation.as_ref().map_or([].as_slice(), |bytes| bytes.as_slice());
        Digest::of_fields([generation, self.cache_salt.as_bytes()]).0
    }

    pub(crate) fn wants_prompt_logprobs(&self) -> bool {
        self.sampling.prompt_logprobs.is_some()
    }

    /// Whether rows of the prompt still have to be turned into log probabilities.
    pub(crate) fn needs_prompt_rows(&self) -> bool {
        self.wants_prompt_logprobs() && !self.prompt_logprobs_sent
    }

    pub(crate) fn has_started(&self) -> bool {
        self.cached_tokens.is_some()
    }

    pub(crate) fn start(&mut self, cached_tokens: usize) {
        self.cached_tokens = Some(cached_tokens);
        self.told.store(count(cached_tokens), Ordering::Relaxed);
    }

    /// Whether nobody reads the stream any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends the prompt's log probabilities, once.
    pub(crate) fn send_prompt_logprobs(&mut self) {
        if self.needs_prompt_rows() {
            self.prompt_logprobs_sent = true;
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.send(EngineEvent::PromptLogprobs(logprobs));
        }
    }

    /// Takes a sampled token; a reason means that the answer ends with it.
    pub(crate) fn push(
        &mut self,
        id: TokenId,
        logprob: Option<TokenLogprob>,
    ) -> Option<FinishReason> {
        self.output_tokens += 1;
        *self.output_counts.entry(id).or_default() += 1;
        if self.end_tokens.contains(&id) {
            return Some(FinishReason::Stop);
        }
        self.send(EngineEvent::Token { id, logprob });
        (self.output_tokens >= self.sampling.max_tokens).then_some(FinishReason::Length)
    }

    pub(crate) fn finish(self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: count(self.prompt.len()),
            completion_tokens: self.output_tokens,
            cached_tokens: count(self.cached_tokens.unwrap_or_default()),
        };
        self.send(EngineEvent::Finished { reason, usage });
    }

    pub(crate) fn fail(self, message: String) {
        self.send(EngineEvent::Failed { message });
    }

    fn send(&self, event: EngineEvent) {
        // The channel has room for every event there can be, so this fails only if nobody reads.
        let _ = self.sender.try_send(event);
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
