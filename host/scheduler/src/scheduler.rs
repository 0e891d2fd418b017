//! Queues and steps.

use std::collections::{HashMap, VecDeque};

use request::TokenId;

use crate::block_hash::BlockHash;
use crate::block_pool::{BlockId, BlockPool};
use crate::config::{ConfigError, SchedulerConfig};
use crate::output::{NewSequence, ScheduledSequence, SchedulerOutput, SchedulerStats, SeqId};

/// Why a sequence was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// As many wait as may.
    #[error("{queued} sequences wait, and no more than {queue_max} may")]
    QueueFull {
        /// Sequences that wait.
        queued: usize,
        /// The limit.
        queue_max: usize,
    },
    /// It could never run.
    #[error("{tokens} tokens of prompt and answer are more than {limit}")]
    TooLong {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// What fits: the context, or the whole cache.
        limit: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    Empty,
    /// The name is taken.
    #[error("sequence {id} is there already")]
    Duplicate {
        /// The name.
        id: SeqId,
    },
}

#[derive(Debug)]
struct Sequence {
    /// Prompt and what has been added.
    tokens: Vec<TokenId>,
    /// Tokens whose keys and values are in `blocks`.
    computed: usize,
    /// Tokens of the step that is being executed.
    in_step: usize,
    blocks: Vec<BlockId>,
    /// Hash of each of `blocks` that is full and computed.
    hashes: Vec<BlockHash>,
    root: BlockHash,
    all_rows: bool,
    started: bool,
}

/// The scheduler. Alternate [`Self::schedule`] and [`Self::update`].
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    sequences: HashMap<SeqId, Sequence>,
    /// In order of arrival; preempted ones in front.
    waiting: VecDeque<SeqId>,
    /// In order of arrival.
    running: Vec<SeqId>,
    prefix_queries: u64,
    prefix_hits: u64,
    preemptions: u64,
}

impl Scheduler {
    /// An idle scheduler.
    ///
    /// # Errors
    /// A limit that can't be.
    pub fn new(config: SchedulerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            pool: BlockPool::new(config.kv_blocks),
            sequences: HashMap::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
        })
    }

    /// Queues a sequence.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add(&mut self, new: NewSequence) -> Result<(), AddError> {
        let queue_max = self.config.queue_max;
        if self.waiting.len() >= queue_max {
            return Err(AddError::QueueFull { queued: self.waiting.len(), queue_max });
        }
        if new.prompt.is_empty() {
            return Err(AddError::Empty);
        }
        // Alone it must fit into the cache, or preempting all others would not help it.
        let cache_tokens = self.config.kv_blocks.saturating_mul(self.config.block_tokens);
        let limit = self.config.context_tokens_max.min(cache_tokens);
        let tokens = new.prompt.len().saturating_add(new.max_tokens);
        if tokens > limit {
            return Err(AddError::TooLong { tokens, limit });
        }
        if self.sequences.contains_key(&new.id) {
            return Err(AddError::Duplicate { id: new.id });
        }
        let sequence = Sequence {
            tokens: new.prompt,
            computed: 0,
            in_step: 0,
            blocks: Vec::new(),
            hashes: Vec::new(),
            root: BlockHash::root(new.cache_key),
            all_rows: new.all_rows,
            started: false,
        };
        self.sequences.insert(new.id, sequence);
        self.waiting.push_back(new.id);
        Ok(())
    }

    /// Takes a sequence out, whether it has ended or is not wanted any more. Its blocks can be
    /// shared until they are needed. Unknown names are ignored.
    pub fn remove(&mut self, id: SeqId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            release(&mut self.pool, &mut sequence);
            self.running.retain(|running| *running != id);
            self.waiting.retain(|waiting| *waiting != id);
        }
    }

    /// Plans the next step: running sequences first, in order of arrival, then waiting ones while
    /// rows, places and blocks last.
    pub fn schedule(&mut self) -> SchedulerOutput {
        let mut output = SchedulerOutput::default();
        let mut rows_left = self.config.step_tokens_max;
        self.schedule_running(&mut output, &mut rows_left);
        // Whoever was preempted needs the blocks that a newcomer would take.
        if output.preempted.is_empty() {
            self.schedule_waiting(&mut output, &mut rows_left);
        }
        output
    }

    fn schedule_running(&mut self, output: &mut SchedulerOutput, rows_left: &mut usize) {
        let mut at = 0;
        while at < self.running.len() && *rows_left > 0 {
            let id = self.running[at];
            let sequence = &self.sequences[&id];
            let rows = (sequence.tokens.len() - sequence.computed).min(*rows_left);
            let end = sequence.computed + rows;
            while !self.reserve(id, end) {
                // The latest arrival gives way. It has not been planned in this step, because the
                // plan goes in order of arrival.
                let victim = self.running.pop().expect("`id` itself is running");
                self.preempt(victim);
                output.preempted.push(victim);
                if victim == id {
                    return;
                }
            }
            self.plan(id, rows, output);
            *rows_left -= rows;
            at += 1;
        }
    }

    fn schedule_waiting(&mut self, output: &mut SchedulerOutput, rows_left: &mut usize) {
        while self.running.len() < self.config.sequences_max && *rows_left > 0 {
            let Some(id) = self.waiting.front().copied() else { return };
            let cached = self.take_prefix(id);
            let sequence = &self.sequences[&id];
            let rows = (sequence.tokens.len() - sequence.computed).min(*rows_left);
            let end = sequence.computed + rows;
            if !self.reserve(id, end) {
                let sequence = self.sequences.get_mut(&id).expect("it waits");
                release(&mut self.pool, sequence);
                return;
            }
            self.waiting.pop_front();
            self.running.push(id);
            self.count_start(id, cached, output);
            self.plan(id, rows, output);
            *rows_left -= rows;
        }
    }

    /// Shares the blocks that hold the beginning of the sequence; returns the tokens they hold. At
    /// least one token is left to run, because its logits are wanted.
    fn take_prefix(&mut self, id: SeqId) -> usize {
        let size = self.config.block_tokens;
        let sequence = self.sequences.get_mut(&id).expect("it waits");
        debug_assert!(sequence.blocks.is_empty(), "who waits holds nothing");
        if !self.config.prefix_cache || sequence.all_rows {
            return 0;
        }
        let mut hash = sequence.root;
        for chunk in sequence.tokens[..sequence.tokens.len() - 1].chunks_exact(size) {
            hash = hash.child(chunk);
            let Some(block) = self.pool.share(hash) else { break };
            sequence.blocks.push(block);
            sequence.hashes.push(hash);
        }
        sequence.computed = sequence.blocks.len() * size;
        sequence.computed
    }

    /// Gives the sequence blocks for positions up to `end`; false if there are too few.
    fn reserve(&mut self, id: SeqId, end: usize) -> bool {
        let sequence = self.sequences.get_mut(&id).expect("it is being planned");
        let needed = end.div_ceil(self.config.block_tokens).saturating_sub(sequence.blocks.len());
        if needed > self.pool.free_blocks() {
            return false;
        }
        let blocks = (0..needed).map(|_| self.pool.allocate().expect("counted above"));
        sequence.blocks.extend(blocks);
        true
    }

    fn preempt(&mut self, id: SeqId) {
        let sequence = self.sequences.get_mut(&id).expect("it was running");
        release(&mut self.pool, sequence);
        self.waiting.push_front(id);
        self.preemptions += 1;
    }

    fn count_start(&mut self, id: SeqId, cached: usize, output: &mut SchedulerOutput) {
        let sequence = self.sequences.get_mut(&id).expect("it is being planned");
        if sequence.started {
            return;
        }
        sequence.started = true;
        self.prefix_queries += sequence.tokens.len() as u64;
        self.prefix_hits += cached as u64;
        output.started.push((id, cached));
    }

    fn plan(&mut self, id: SeqId, rows: usize, output: &mut SchedulerOutput) {
        let sequence = self.sequences.get_mut(&id).expect("it is being planned");
        let (start, end) = (sequence.computed, sequence.computed + rows);
        sequence.in_step = rows;
        output.sequences.push(ScheduledSequence {
            id,
            start,
            tokens: sequence.tokens[start..end].to_vec(),
            block_table: sequence.blocks.clone(),
            samples: end == sequence.tokens.len(),
        });
    }

    /// Takes the result of the step that was planned last: its rows are computed, and `sampled`
    /// tokens are added. Names of sequences that were removed meanwhile are ignored.
    pub fn update(&mut self, output: &SchedulerOutput, sampled: &[(SeqId, TokenId)]) {
        for scheduled in &output.sequences {
            if let Some(sequence) = self.sequences.get_mut(&scheduled.id) {
                sequence.computed += std::mem::take(&mut sequence.in_step);
                publish(&mut self.pool, sequence, &self.config);
            }
        }
        for (id, token) in sampled {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.tokens.push(*token);
            }
        }
    }

    /// Sizes of the queues and the cache.
    #[must_use]
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            blocks_used: self.pool.total_blocks() - self.pool.free_blocks(),
            blocks_total: self.pool.total_blocks(),
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            preemptions: self.preemptions,
        }
    }

    /// Holders of a block.
    #[cfg(test)]
    pub(crate) fn references(&self, block: BlockId) -> u32 {
        self.pool.references(block)
    }

    /// Blocks of a sequence.
    #[cfg(test)]
    pub(crate) fn blocks(&self, id: SeqId) -> &[BlockId] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.blocks)
    }
}

/// Makes the blocks that have become full and computed shareable.
fn publish(pool: &mut BlockPool, sequence: &mut Sequence, config: &SchedulerConfig) {
    if !config.prefix_cache {
        return;
    }
    let size = config.block_tokens;
    while (sequence.hashes.len() + 1) * size <= sequence.computed {
        let index = sequence.hashes.len();
        let parent = sequence.hashes.last().copied().unwrap_or(sequence.root);
        let hash = parent.child(&sequence.tokens[index * size..(index + 1) * size]);
        pool.publish(sequence.blocks[index], hash);
        sequence.hashes.push(hash);
    }
}

/// Takes all blocks from a sequence, the last first.
fn release(pool: &mut BlockPool, sequence: &mut Sequence) {
    for block in sequence.blocks.drain(..).rev() {
        pool.release(block);
    }
    sequence.hashes.clear();
    (sequence.computed, sequence.in_step) = (0, 0);
}
