//! One step: plan, run the model over all rows, sample, tell.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use models::{ForwardBatch, ModelError, SequenceSpan};
use request::{AdapterGeneration, FinishReason, TokenId};
use scheduler::{ScheduledSequence, Scheduler, SchedulerOutput, SeqId, StepLimits};

use crate::logits::{Rows, Wish, on_host, read};
use crate::metrics::StepReport;
use crate::ngram;
use crate::sequence::{ChooseError, Chosen, Sequence};
use crate::worker::Worker;

/// Rows of one sequence whose logits were asked for.
struct Wanted {
    part: ScheduledSequence,
    /// Position of the first of them.
    start: usize,
    rows: Range<usize>,
    /// Its hidden states among those asked for.
    hidden: Range<usize>,
}

/// What the rows of one sequence gave.
#[derive(Default)]
struct Sampled {
    /// Several, where guesses were right.
    tokens: Vec<Chosen>,
    ended: Option<FinishReason>,
    failed: Option<ChooseError>,
}

impl Worker {
    /// Runs one step. A failure of the model fails the sequences of the step, not the engine.
    pub(crate) fn step(&mut self) {
        let started = Instant::now();
        let limits = self.limits(started);
        self.propose(limits.draft_rows_max);
        let output = self.scheduler.schedule(&limits);
        self.expire(&output);
        self.start_sequences(&output);
        if output.sequences.is_empty() {
            return;
        }
        let wanted = self.fill_batch(&output);
        let forwarding = Instant::now();
        // `[rows, vocab]`
        let forward = self.forward();
        let forward_took = forwarding.elapsed();
        let adapters = distinct_adapters(&self.batch);
        // Who leaves must not be held by a batch that has run.
        self.batch.adapters.clear();
        let sampled = forward.map_err(|error| error.to_string()).and_then(|(logits, hidden)| {
            let sampled = self.read_and_sample(&wanted, &logits)?;
            if let Some(hidden) = hidden {
                on_host(&hidden, |rows| self.pool(&wanted, rows))?;
            }
            Ok(sampled)
        });
        let sampled = match sampled {
            Ok(sampled) => sampled,
            Err(error) => {
                tracing::error!(%error, "the model failed");
                return self.fail_all(&output, &error);
            }
        };
        let tokens = |(wanted, sampled): (&Wanted, &Sampled)| {
            let id = wanted.part.id;
            sampled.tokens.iter().map(move |(token, _)| (id, *token)).collect::<Vec<_>>()
        };
        let tokens: Vec<(SeqId, TokenId)> = wanted.iter().zip(&sampled).flat_map(tokens).collect();
        self.scheduler.update(&output, &tokens);
        // Before anybody is told of an end, which comes with the whole time.
        self.share_out(&output, started.elapsed());
        self.tell(&wanted, sampled);
        self.learn(&output, adapters, (started.elapsed(), forward_took));
    }

    /// `[logits_rows, vocab]`, and `[hidden_rows, hidden]` where some are wanted.
    fn forward(&mut self) -> Result<(Tensor, Option<Tensor>), ModelError> {
        if self.batch.hidden_rows.is_empty() {
            return Ok((self.model.forward(&self.batch, &mut self.kv)?, None));
        }
        let (logits, hidden) = self.model.forward_hidden(&self.batch, &mut self.kv)?;
        Ok((logits, Some(hidden)))
    }

    /// Adds hidden states up.
    fn pool(&mut self, wanted: &[Wanted], hidden: &[f32]) {
        let width = self.model.config().hidden_size;
        for wanted in wanted.iter().filter(|wanted| !wanted.hidden.is_empty()) {
            let sequence = self.sequences.get_mut(&wanted.part.id);
            if let Some(pool) = sequence.and_then(|sequence| sequence.pool.as_mut()) {
                let rows = wanted.hidden.start * width..wanted.hidden.end * width;
                pool.add(wanted.start, hidden[rows].chunks_exact(width));
            }
        }
    }

    fn limits(&self, now: Instant) -> StepLimits {
        let cost = self.targets.as_ref().and_then(|targets| {
            let silent = |sequence: &&Sequence| sequence.last_token.is_none();
            let arrived = self.sequences.values().filter(silent).map(|sequence| sequence.arrived);
            let oldest = arrived.min().map_or(Duration::ZERO, |arrived| now - arrived);
            Some((self.pace.cost()?, targets.step(oldest)))
        });
        let draft_rows_max = match self.config.speculative {
            Some(speculative) => speculative.disable_by_batch_size - 1,
            None => 0,
        };
        StepLimits { now: self.tick(now), cost, draft_rows_max }
    }

    /// Guesses what comes next, where that pays.
    fn propose(&mut self, draft_rows_max: usize) {
        let Some(config) = self.config.speculative else { return };
        let running = self.scheduler.stats().running;
        if running >= draft_rows_max {
            return;
        }
        let row_share = self.draft_pace.row_share(running);
        let sequences = &mut self.sequences;
        self.scheduler.propose(|id, tokens, room, drafts| {
            let Some(sequence) = sequences.get_mut(&id) else { return };
            // Each guess would wait for the mask behind the one before it.
            if sequence.constraint.is_some() {
                return;
            }
            let count = sequence.speculation.count(&config, row_share).min(room);
            if count > 0 {
                ngram::propose(tokens, &config, count, drafts);
            }
        });
    }

    fn expire(&mut self, output: &SchedulerOutput) {
        for id in &output.expired {
            if let Some(expired) = self.remove(*id) {
                self.shared.metrics.observe_expiration();
                expired.expire();
            }
        }
    }

    fn start_sequences(&mut self, output: &SchedulerOutput) {
        for (id, cached) in &output.started {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.start(*cached);
                let waited = sequence.arrived.elapsed();
                self.shared.metrics.observe_start(waited, sequence.prompt.len());
            }
        }
    }

    /// The scheduler's plan as the model takes it, in the memory of the last step's.
    fn fill_batch(&mut self, output: &SchedulerOutput) -> Vec<Wanted> {
        let ForwardBatch { tokens, positions, sequences, adapters, logits_rows, hidden_rows } =
            &mut self.batch;
        tokens.clear();
        positions.clear();
        adapters.clear();
        logits_rows.clear();
        hidden_rows.clear();
        sequences.resize_with(output.sequences.len(), SequenceSpan::default);
        let mut wanted = Vec::with_capacity(output.sequences.len());
        for (part, span) in output.sequences.iter().zip(sequences) {
            let sequence = &self.sequences[&part.id];
            let (token_start, end) = (tokens.len(), part.end());
            let (known, drafts) = self.scheduler.rows(part);
            tokens.extend_from_slice(known);
            tokens.extend_from_slice(drafts);
            positions.extend((part.start..end).map(|position| position as u32));
            adapters.push(sequence.adapter.as_ref().map(Arc::clone));
            (span.token_start, span.token_count) = (token_start, part.rows);
            span.context_len = end;
            span.block_table.clear();
            span.block_table.extend_from_slice(self.scheduler.block_table(part.id));
            let first = first_wanted(sequence, part);
            let (from, hidden_from) = (logits_rows.len(), hidden_rows.len());
            let rows = token_start + first..token_start + part.rows;
            let rows = rows.map(|row| row as u32);
            match sequence.pool {
                Some(_) => hidden_rows.extend(rows),
                None => logits_rows.extend(rows),
            }
            wanted.push(Wanted {
                part: *part,
                start: part.start + first,
                rows: from..logits_rows.len(),
                hidden: hidden_from..hidden_rows.len(),
            });
        }
        wanted
    }

    /// Tokens of a step's logits, drawn where they lie as far as that can be.
    fn read_and_sample(
        &mut self,
        wanted: &[Wanted],
        logits: &Tensor,
    ) -> Result<Vec<Sampled>, String> {
        let vocab_size = self.model.config().vocab_size;
        let rows = wanted.last().map_or(0, |wanted| wanted.rows.end);
        if logits.dims() != [rows, vocab_size] {
            let found = logits.dims();
            return Err(format!("logits {found:?} for {rows} rows of {vocab_size}"));
        }
        let place = Arc::clone(&self.place);
        let mut asked = Vec::new();
        if !place.is_host(logits) {
            asked.extend(wanted.iter().flat_map(|wanted| wishes(&self.sequences, wanted)));
        }
        read(&*place, (logits, vocab_size), &asked, |rows| self.sample(wanted, rows))
    }

    /// Turns logits into prompt log probabilities and tokens, sequence by sequence on all threads.
    fn sample(&mut self, wanted: &[Wanted], rows: &Rows<'_>) -> Vec<Sampled> {
        let mut work: Vec<Mutex<(Option<&mut Sequence>, Sampled)>> = Vec::new();
        work.resize_with(wanted.len(), Mutex::default);
        let places: HashMap<SeqId, usize> =
            wanted.iter().enumerate().map(|(place, wanted)| (wanted.part.id, place)).collect();
        for (id, sequence) in &mut self.sequences {
            if let Some(place) = places.get(id) {
                work[*place].get_mut().unwrap_or_else(PoisonError::into_inner).0 = Some(sequence);
            }
        }
        let scheduler = &self.scheduler;
        kernels::for_tasks(work.len(), |place| {
            let (sequence, sampled) =
                &mut *work[place].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sequence) = sequence {
                *sampled = sample_one(sequence, &wanted[place], scheduler, rows);
            }
        });
        let sampled = work.into_iter().map(|one| one.into_inner());
        sampled.map(|one| one.unwrap_or_else(PoisonError::into_inner).1).collect()
    }

    /// Tells each sequence of its new tokens, and takes out those that have ended.
    fn tell(&mut self, wanted: &[Wanted], sampled: Vec<Sampled>) {
        let now = Instant::now();
        for (Wanted { part, .. }, sampled) in wanted.iter().zip(sampled) {
            let Some(sequence) = self.sequences.get_mut(&part.id) else { continue };
            if part.samples {
                sequence.send_prompt_logprobs();
            }
            if part.drafts > 0 {
                let accepted = sampled.tokens.len().saturating_sub(1);
                sequence.speculation.learn(part.drafts, accepted);
                self.shared.metrics.observe_drafts(part.drafts, accepted);
            }
            if sequence.pool.is_some() {
                if part.samples
                    && let Some(ended) = self.remove(part.id)
                {
                    let timing = (ended.course.timing(), now - ended.arrived);
                    self.shared.metrics.observe_end(FinishReason::Length, timing);
                    ended.finish_pooled();
                }
                continue;
            }
            let count = sampled.tokens.len();
            for (index, token) in sampled.tokens.into_iter().enumerate() {
                let last = sequence.last_token.replace(now);
                let gap = last.map(|last| now - last);
                self.shared.metrics.observe_token(gap, now - sequence.arrived);
                if sequence.sampling.max_tokens > 0 {
                    sequence.course.token(now - sequence.arrived);
                }
                sequence.tell(token, sampled.ended.filter(|_| index + 1 == count));
            }
            if let Some(error) = sampled.failed {
                if let Some(failed) = self.remove(part.id) {
                    failed.fail(error.to_string());
                }
            } else if let Some(reason) = sampled.ended
                && let Some(ended) = self.remove(part.id)
            {
                let timing = (ended.course.timing(), now - ended.arrived);
                self.shared.metrics.observe_end(reason, timing);
                ended.finish(reason);
            }
        }
    }

    /// Adds each sequence's part of the step to its time.
    fn share_out(&self, output: &SchedulerOutput, took: Duration) {
        let rows = self.batch.tokens.len().max(1) as f64;
        for part in &output.sequences {
            if let Some(sequence) = self.sequences.get(&part.id) {
                sequence.course.compute(took.mul_f64(part.rows as f64 / rows));
            }
        }
    }

    fn learn(
        &mut self,
        output: &SchedulerOutput,
        adapters: usize,
        (took, forward): (Duration, Duration),
    ) {
        let before = |part: &ScheduledSequence| {
            let (start, rows) = (part.start as u64, part.rows as u64);
            rows * start + rows * (rows - 1) / 2
        };
        let (rows, sequences) = (self.batch.tokens.len(), output.sequences.len());
        let positions = output.sequences.iter().map(before).sum();
        self.pace.learn(rows, positions, took);
        if self.config.speculative.is_some_and(|config| rows < config.disable_by_batch_size) {
            self.draft_pace.learn(rows, positions, took);
        }
        let report = StepReport { took, forward, rows, sequences, adapters };
        self.shared.metrics.observe_step(&report);
    }

    fn fail_all(&mut self, output: &SchedulerOutput, message: &str) {
        for part in &output.sequences {
            if let Some(failed) = self.remove(part.id) {
                failed.fail(format!("the model failed: {message}"));
            }
        }
    }
}

/// Index of the first row of a sequence's part that is wanted: all of the prompt's for prompt
/// logprobs or hidden states, else the last that is no guess if it gives a token, and the guesses.
fn first_wanted(sequence: &Sequence, part: &ScheduledSequence) -> usize {
    let is_prompt = part.start < sequence.prompt.len();
    if is_prompt && (sequence.needs_prompt_rows() || sequence.pool.is_some()) {
        return 0;
    }
    part.rows - part.drafts - usize::from(part.samples)
}

/// How the rows of one sequence are to come to the host.
fn wishes(sequences: &HashMap<SeqId, Sequence>, wanted: &Wanted) -> Vec<Wish> {
    let count = wanted.rows.len();
    let draws = sequences.get(&wanted.part.id).and_then(|sequence| sequence.draws(count));
    draws.map_or_else(|| vec![None; count], |draws| draws.into_iter().map(Some).collect())
}

/// Chooses a sequence's next tokens: behind its last one, and on while guesses are what would have
/// been chosen anyway. Each choice sees the history it would see without guesses.
fn sample_one(
    sequence: &mut Sequence,
    wanted: &Wanted,
    scheduler: &Scheduler,
    rows: &Rows<'_>,
) -> Sampled {
    let mut sampled = Sampled::default();
    if sequence.pool.is_some() {
        return sampled;
    }
    let rows = wanted.rows.clone().map(|row| rows.get(row));
    if sequence.needs_prompt_rows() {
        sampled.failed = sequence.read_prompt(wanted.start, rows.clone()).err().map(Into::into);
    }
    if !wanted.part.samples || sampled.failed.is_some() {
        return sampled;
    }
    let (_, drafts) = scheduler.rows(&wanted.part);
    let drafts = drafts.iter().map(|draft| Some(*draft)).chain([None]);
    for (row, draft) in rows.skip(wanted.rows.len() - 1 - wanted.part.drafts).zip(drafts) {
        match sequence.choose(row) {
            Ok((token, reason)) => {
                let right = token.as_ref().is_some_and(|token| draft == Some(token.0));
                sampled.tokens.extend(token);
                sampled.ended = reason;
                if reason.is_some() || !right {
                    break;
                }
            }
            Err(error) => {
                sampled.failed = Some(error);
                break;
            }
        }
    }
    sampled
}

fn distinct_adapters(batch: &ForwardBatch) -> usize {
    let present = batch.adapters.iter().flatten();
    let mut generations: Vec<AdapterGeneration> =
        present.map(|adapter| adapter.generation()).collect();
    generations.sort_unstable();
    generations.dedup();
    generations.len()
}
