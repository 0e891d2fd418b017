//! What a request keeps while it runs: its tokens, its counts, and the way back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::SampleParams;
use lora::Adapter;
use models::ModelConfig;
use request::{Digest, FinishReason, SamplingParams, TokenId, TokenLogprob, Usage};
use tokio::sync::mpsc;

use crate::admission::Ticket;
use crate::command::{Job, Task};
use crate::constraint::Constraint;
use crate::course::Course;
use crate::logits::Row;
use crate::pooling::MeanPool;
use crate::sampler::{self, History, SampleError};
use crate::speculation::Speculation;
use crate::stream::EngineEvent;

/// A request between its arrival and its end.
pub(crate) struct Sequence {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampling: SamplingParams,
    pub(crate) adapter: Option<Arc<Adapter>>,
    pub(crate) arrived: Instant,
    /// Longest it may wait before it runs.
    pub(crate) start_within: Option<Duration>,
    /// When the last token was sampled.
    pub(crate) last_token: Option<Instant>,
    /// How its guesses did.
    pub(crate) speculation: Speculation,
    /// Distinct tokens of the prompt, sorted, where a repetition penalty asks for them.
    prompt_tokens: Vec<TokenId>,
    /// How often each token stands in the answer, where a penalty asks for it.
    output_counts: HashMap<TokenId, u32>,
    /// Tokens of the answer so far.
    output_tokens: u32,
    /// Tokens that end the answer.
    end_tokens: Vec<TokenId>,
    /// Log probabilities of the prompt found so far; filled by position.
    prompt_logprobs: Vec<Option<TokenLogprob>>,
    /// Present where hidden states are wanted, and no token.
    pub(crate) pool: Option<MeanPool>,
    /// What the next token may be, where that is bounded.
    pub(crate) constraint: Option<Constraint>,
    /// Its place in the queue, while it has not run yet.
    ticket: Option<Ticket>,
    prompt_logprobs_sent: bool,
    cached_tokens: Option<usize>,
    /// Where the stream reads it.
    pub(crate) course: Arc<Course>,
    cache_salt: String,
    sender: mpsc::Sender<EngineEvent>,
}

/// Why no token could be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChooseError {
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("{0}")]
    Constraint(String),
}

/// A token with its log probability, if that is wanted.
pub(crate) type Chosen = (TokenId, Option<TokenLogprob>);

impl Sequence {
    pub(crate) fn new(job: Job, model: &ModelConfig) -> Self {
        let Job { request, task, sender, course, arrived, ticket } = job;
        let (pool, constraint) = match task {
            Task::Pool => (Some(MeanPool::default()), None),
            Task::Generate(constraint) => (None, constraint),
        };
        let mut end_tokens = request.sampling.stop_token_ids.clone();
        if !request.sampling.ignore_eos {
            end_tokens.extend_from_slice(&model.eos_token_ids);
        }
        let mut prompt_tokens = Vec::new();
        if request.sampling.repetition_penalty != 1.0 {
            prompt_tokens = request.prompt.clone();
            prompt_tokens.sort_unstable();
            prompt_tokens.dedup();
        }
        Self {
            prompt: request.prompt,
            sampling: request.sampling,
            adapter: request.adapter,
            arrived,
            start_within: request.start_within,
            last_token: None,
            speculation: Speculation::default(),
            prompt_tokens,
            output_counts: HashMap::new(),
            output_tokens: 0,
            end_tokens,
            prompt_logprobs: Vec::new(),
            pool,
            constraint,
            ticket: Some(ticket),
            prompt_logprobs_sent: false,
            cached_tokens: None,
            course,
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

    /// Whether no row of the prompt may be taken from the prefix cache.
    pub(crate) fn wants_every_row(&self) -> bool {
        self.wants_prompt_logprobs() || self.pool.is_some()
    }

    pub(crate) fn start(&mut self, cached_tokens: usize) {
        self.ticket = None;
        self.cached_tokens = Some(cached_tokens);
        self.course.start(self.arrived.elapsed(), count(cached_tokens));
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

    /// Log probabilities of the prompt's tokens behind the rows from `start` on.
    pub(crate) fn read_prompt<'a>(
        &mut self,
        start: usize,
        rows: impl Iterator<Item = Row<'a>>,
    ) -> Result<(), SampleError> {
        let top = self.sampling.prompt_logprobs.unwrap_or_default();
        if self.prompt_logprobs.is_empty() {
            self.prompt_logprobs.push(None);
        }
        for (offset, row) in rows.enumerate() {
            let position = start + offset + 1;
            // After a preemption rows come again; what is known is kept.
            if position == self.prompt_logprobs.len()
                && let (Row::Logits(row), Some(token)) = (row, self.prompt.get(position))
            {
                let logprob = sampler::logprob(row, *token, top);
                self.prompt_logprobs.push(Some(logprob.map_err(SampleError::from)?));
            }
        }
        Ok(())
    }

    /// How its next tokens can be drawn by whoever knows the logits alone, one for each of `rows`; `None`
    /// where they depend on more, or more than tokens is wanted.
    pub(crate) fn draws(&self, rows: usize) -> Option<Vec<SampleParams>> {
        let logprobs = self.needs_prompt_rows() || self.sampling.logprobs.is_some();
        if self.pool.is_some() || self.constraint.is_some() || logprobs {
            return None;
        }
        sampler::draws(&self.sampling, &self.history(), rows)
    }

    fn history(&self) -> History<'_> {
        History {
            prompt: &self.prompt_tokens,
            output_counts: &self.output_counts,
            output_tokens: self.output_tokens,
            end_tokens: &self.end_tokens,
        }
    }

    /// Chooses the next token; a reason means that the answer ends with it, or before it where there
    /// is none.
    pub(crate) fn choose(
        &mut self,
        row: Row<'_>,
    ) -> Result<(Option<Chosen>, Option<FinishReason>), ChooseError> {
        let row = match row {
            Row::Logits(row) => row,
            Row::Token(token) => {
                let (token, reason) = self.take((token, None));
                return Ok((Some(token), reason));
            }
        };
        let bounded = match &self.constraint {
            None => None,
            Some(constraint) => {
                let mut bounded = row.to_vec();
                let left = constraint.apply(&mut bounded).map_err(ChooseError::Constraint)?;
                if left.is_none() {
                    return Ok((None, Some(FinishReason::Stop)));
                }
                Some(bounded)
            }
        };
        let logits = bounded.as_deref().unwrap_or(row);
        let token = sampler::sample(logits, &self.sampling, &self.history())?;
        if let Some(constraint) = &self.constraint {
            constraint.tell(token);
        }
        let logprob = match self.sampling.logprobs {
            Some(top) => Some(sampler::logprob(row, token, top).map_err(SampleError::from)?),
            None => None,
        };
        let (token, reason) = self.take((token, logprob));
        Ok((Some(token), reason))
    }

    /// Takes a token as the next one; a reason means that the answer ends with it.
    fn take(&mut self, (token, logprob): Chosen) -> (Chosen, Option<FinishReason>) {
        if self.sampling.max_tokens == 0 {
            // Only the prompt's log probabilities were wanted.
            return ((token, None), Some(FinishReason::Length));
        }
        self.output_tokens += 1;
        if sampler::needs_counts(&self.sampling) {
            *self.output_counts.entry(token).or_default() += 1;
        }
        let reason = if self.end_tokens.contains(&token) {
            Some(FinishReason::Stop)
        } else {
            (self.output_tokens >= self.sampling.max_tokens).then_some(FinishReason::Length)
        };
        ((token, logprob), reason)
    }

    /// Tells of a token that was chosen. One that ends the answer as a stop is no part of it, but is told with
    /// its log probability: those who count on one for each token would else take that of the last but one.
    pub(crate) fn tell(&self, (id, logprob): Chosen, reason: Option<FinishReason>) {
        match (reason, logprob) {
            _ if self.sampling.max_tokens == 0 => {}
            (Some(FinishReason::Stop), None) => {}
            (Some(FinishReason::Stop), Some(logprob)) => {
                self.send(EngineEvent::Stop { id, logprob });
            }
            (_, logprob) => self.send(EngineEvent::Token { id, logprob }),
        }
    }

    pub(crate) fn finish(self, reason: FinishReason) {
        let usage = Usage {
            prompt_tokens: count(self.prompt.len()),
            completion_tokens: self.output_tokens,
            cached_tokens: count(self.cached_tokens.unwrap_or_default()),
        };
        self.send(EngineEvent::Finished { reason, usage });
    }

    /// It waited for too long.
    pub(crate) fn expire(self) {
        self.send(EngineEvent::Expired { waited: self.arrived.elapsed() });
    }

    /// Ends a sequence whose hidden states are all there.
    pub(crate) fn finish_pooled(self) {
        let mean = self.pool.as_ref().map(MeanPool::mean).unwrap_or_default();
        self.send(EngineEvent::Pooled(mean));
        self.finish(FinishReason::Length);
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
