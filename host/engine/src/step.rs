//! One step: plan, run the model over all rows, sample, tell.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use candle_core::Tensor;
use models::{ForwardBatch, SequenceSpan};
use request::{FinishReason, TokenId};
use scheduler::{ScheduledSequence, SchedulerOutput, SeqId};

use crate::sampler::{self, History};
use crate::sequence::Sequence;
use crate::worker::Worker;

/// Rows of one sequence whose logits were asked for.
struct Wanted {
    id: SeqId,
    /// Position of the first of them.
    start: usize,
    rows: std::ops::Range<usize>,
    /// Whether the last row's logits give a new token.
    samples: bool,
}

impl Worker {
    /// Runs one step. A failure of the model fails the sequences of the step, not the engine.
    pub(crate) fn step(&mut self) {
        let started = Instant::now();
        let output = self.scheduler.schedule();
        self.start_sequences(&output);
        if output.sequences.is_empty() {
            return;
        }
        let (batch, wanted) = self.batch(&output);
        let (rows, adapters) = (batch.tokens.len(), distinct_adapters(&batch));
        // `[rows, vocab]`, contiguous on the CPU.
        let forward = self.model.forward(&batch, &mut self.kv).map_err(|error| error.to_string());
        let read = |logits: Tensor| logits.to_vec2::<f32>().map_err(|error| error.to_string());
        let logits = match forward.and_then(read) {
            Ok(logits) => logits,
            Err(error) => {
                tracing::error!(%error, "the model failed");
                return self.fail_all(&output, &error);
            }
        };
        let sampled = self.read_logits(&wanted, logits);
        self.scheduler.update(&output, &sampled);
        self.shared.metrics.observe_step(started.elapsed(), rows, output.sequences.len(), adapters);
        self.finish_ended(&sampled);
    }

    fn start_sequences(&mut self, output: &SchedulerOutput) {
        for (id, cached) in &output.started {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.start(*cached);
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
                let waited = sequence.arrived.elapsed();
                self.shared.metrics.observe_start(waited, sequence.prompt.len());
            }
        }
    }

    /// The scheduler's plan as the model takes it.
    fn batch(&self, output: &SchedulerOutput) -> (ForwardBatch, Vec<Wanted>) {
        let mut batch = ForwardBatch::default();
        let mut wanted = Vec::new();
        for scheduled in &output.sequences {
            let sequence = &self.sequences[&scheduled.id];
            let token_start = batch.tokens.len();
            let (token_count, end) =
                (scheduled.tokens.len(), scheduled.start + scheduled.tokens.len());
            batch.tokens.extend_from_slice(&scheduled.tokens);
            batch.positions.extend((scheduled.start..end).map(|position| position as u32));
            batch.adapters.push(sequence.adapter.as_ref().map(Arc::clone));
            batch.sequences.push(SequenceSpan {
                token_start,
                token_count,
                context_len: end,
                block_table: scheduled.block_table.clone(),
            });
            let first = first_wanted(sequence, scheduled);
            let from = batch.logits_rows.len();
            let rows = token_start + first..token_start + token_count;
            batch.logits_rows.extend(rows.map(|row| row as u32));
            wanted.push(Wanted {
                id: scheduled.id,
                start: scheduled.start + first,
                rows: from..batch.logits_rows.len(),
                samples: scheduled.samples,
            });
        }
        (batch, wanted)
    }

    /// Turns logits into prompt log probabilities and tokens.
    fn read_logits(
        &mut self,
        wanted: &[Wanted],
        mut logits: Vec<Vec<f32>>,
    ) -> Vec<(SeqId, TokenId)> {
        let mut sampled = Vec::new();
        for wanted in wanted {
            let Some(sequence) = self.sequences.get_mut(&wanted.id) else { continue };
            let rows = &mut logits[wanted.rows.clone()];
            read_prompt(sequence, wanted.start, rows);
            if let (true, Some(row)) = (wanted.samples, rows.last_mut()) {
                sequence.send_prompt_logprobs();
                match next_token(sequence, row) {
                    Ok(token) => sampled.push((wanted.id, token)),
                    Err(message) => {
                        if let Some(failed) = self.remove(wanted.id) {
                            failed.fail(message);
                        }
                    }
                }
            }
        }
        sampled
    }

    /// Tells each sequence of its new token, and takes out those that have ended.
    fn finish_ended(&mut self, sampled: &[(SeqId, TokenId)]) {
        for (id, token) in sampled {
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            let now = Instant::now();
            let last = sequence.last_token.replace(now);
            self.shared.metrics.observe_token(last.map(|last| now - last), now - sequence.arrived);
            let logprob = sequence.pending_logprob.take();
            let reason = match sequence.sampling.max_tokens {
                // Only the prompt's log probabilities were wanted.
                0 => Some(FinishReason::Length),
                _ => sequence.push(*token, logprob),
            };
            if let Some(reason) = reason
                && let Some(ended) = self.remove(*id)
            {
                self.shared.metrics.observe_end(reason);
                ended.finish(reason);
            }
        }
    }

    fn fail_all(&mut self, output: &SchedulerOutput, message: &str) {
        for scheduled in &output.sequences {
            if let Some(failed) = self.remove(scheduled.id) {
                failed.fail(format!("the model failed: {message}"));
            }
        }
    }
}

/// Index of the first row of a sequence's part whose logits are wanted: all of the prompt's for
/// prompt logprobs, else the last if it gives a token.
fn first_wanted(sequence: &Sequence, scheduled: &ScheduledSequence) -> usize {
    let is_prompt = scheduled.start < sequence.prompt.len();
    if is_prompt && sequence.needs_prompt_rows() {
        return 0;
    }
    scheduled.tokens.len() - usize::from(scheduled.samples)
}

/// Log probabilities of the prompt's tokens behind the rows from `start` on.
fn read_prompt(sequence: &mut Sequence, start: usize, rows: &[Vec<f32>]) {
    if !sequence.needs_prompt_rows() {
        return;
    }
    let top = sequence.sampling.prompt_logprobs.unwrap_or_default();
    if sequence.prompt_logprobs.is_empty() {
        sequence.prompt_logprobs.push(None);
    }
    for (offset, row) in rows.iter().enumerate() {
        let position = start + offset + 1;
        // After a preemption rows come again; what is known is kept.
        if position == sequence.prompt_logprobs.len()
            && let Some(token) = sequence.prompt.get(position)
        {
            sequence.prompt_logprobs.push(Some(sampler::logprob(row, *token, top)));
        }
    }
}

/// Samples; the log probability is taken before the logits are changed.
fn next_token(sequence: &mut Sequence, row: &mut [f32]) -> Result<TokenId, String> {
    let raw = sequence.sampling.logprobs.map(|top| (top, row.to_vec()));
    let history = History {
        prompt: &sequence.prompt,
        output_counts: &sequence.output_counts,
        output_tokens: sequence.output_tokens,
        end_tokens: &sequence.end_tokens,
    };
    let token = sampler::sample(row, &sequence.sampling, &history);
    let token = token.map_err(|error| error.to_string())?;
    sequence.pending_logprob = raw.map(|(top, row)| sampler::logprob(&row, token, top));
    Ok(token)
}

fn distinct_adapters(batch: &ForwardBatch) -> usize {
    let present = batch.adapters.iter().flatten();
    present.map(|adapter| adapter.generation()).collect::<HashSet<_>>().len()
}
