//! Who is there and who runs: arrivals, departures, and what a step has changed.

use std::collections::{BTreeSet, HashMap};

use request::TokenId;

use crate::block_pool::{BlockId, BlockPool};
use crate::config::{ConfigError, SchedulerConfig};
use crate::fair::FairQueue;
use crate::output::{NewSequence, ScheduledSequence, SchedulerOutput, SchedulerStats, SeqId};
use crate::sequence::{Computing, Sequence};

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

/// Place of a running sequence: the most urgent first. Who arrived later gives way first.
pub(crate) type Place = (i64, u64, SeqId);

/// The scheduler. Alternate [`Self::schedule`] and [`Self::update`].
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    pub(crate) sequences: HashMap<SeqId, Sequence>,
    pub(crate) queue: FairQueue,
    /// Sorted.
    pub(crate) running: Vec<Place>,
    pub(crate) computing: Computing,
    /// Deadlines of those that have not run yet.
    pub(crate) deadlines: BTreeSet<(u64, SeqId)>,
    arrivals: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) preemptions: u64,
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
            queue: FairQueue::default(),
            running: Vec::new(),
            computing: HashMap::new(),
            deadlines: BTreeSet::new(),
            arrivals: 0,
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
        let (queued, queue_max) = (self.queue.len(), self.config.queue_max);
        if queued >= queue_max {
            return Err(AddError::QueueFull { queued, queue_max });
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
        let order = self.arrivals;
        self.arrivals += 1;
        let sequence = Sequence::new(new, order);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.insert((deadline, sequence.id));
        }
        self.queue.arrive(&sequence.party);
        self.queue.wait(&sequence.party, order, sequence.id);
        self.sequences.insert(sequence.id, sequence);
        Ok(())
    }

    /// Takes a sequence out, whether it has ended or is not wanted any more. Its blocks can be
    /// shared until they are needed. Unknown names are ignored.
    pub fn remove(&mut self, id: SeqId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        sequence.release(&mut self.pool, &mut self.computing);
        if !self.queue.set_aside(&sequence.party, sequence.order) {
            self.running.retain(|(_, _, running)| *running != id);
        }
        self.queue.depart(&sequence.party);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Asks for guesses of what comes next: `guess` gets a sequence that generates, its tokens, how
    /// many guesses it has use for, and where to put them. They run in the next step where there is
    /// room, and change nothing but the number of steps.
    pub fn propose(&mut self, mut guess: impl FnMut(SeqId, &[TokenId], usize, &mut Vec<TokenId>)) {
        for (_, _, id) in &self.running {
            let sequence = self.sequences.get_mut(id).expect("it runs");
            sequence.drafts.clear();
            let room = sequence.draft_room();
            if sequence.pending() == 1 && room > 0 {
                guess(*id, &sequence.tokens, room, &mut sequence.drafts);
                sequence.drafts.truncate(room);
            }
        }
    }

    /// Tokens of the rows of a sequence's part of the step that was planned last: those it has, and
    /// guesses.
    ///
    /// # Panics
    /// If the sequence has been removed.
    pub fn rows(&self, scheduled: &ScheduledSequence) -> (&[TokenId], &[TokenId]) {
        let sequence = &self.sequences[&scheduled.id];
        let known = scheduled.start..scheduled.end() - scheduled.drafts;
        (&sequence.tokens[known], &sequence.drafts[..scheduled.drafts])
    }

    /// Blocks of a sequence's positions, in their order; empty if it does not run.
    #[must_use]
    pub fn block_table(&self, id: SeqId) -> &[BlockId] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.blocks)
    }

    /// Takes the result of the step that was planned last: its rows are computed, and `sampled`
    /// tokens are added, several in a row where guesses were right. Names of sequences that were
    /// removed meanwhile are ignored.
    pub fn update(&mut self, output: &SchedulerOutput, sampled: &[(SeqId, TokenId)]) {
        for scheduled in &output.sequences {
            if let Some(sequence) = self.sequences.get_mut(&scheduled.id) {
                sequence.computed += std::mem::take(&mut sequence.in_step);
            }
        }
        for (id, token) in sampled {
            if let Some(sequence) = self.sequences.get_mut(id) {
                // What it was sampled behind is computed: a right guess, where it is not the first.
                sequence.computed = sequence.tokens.len();
                sequence.tokens.push(*token);
            }
        }
        let size = self.config.block_tokens;
        for scheduled in &output.sequences {
            let Some(sequence) = self.sequences.get_mut(&scheduled.id) else { continue };
            let service = sequence.serve_to(sequence.computed);
            self.queue.serve(&sequence.party, service);
            if self.config.prefix_cache {
                sequence.publish(&mut self.pool, &mut self.computing, size);
            }
            if scheduled.drafts > 0 {
                sequence.drafts.clear();
                sequence.trim(&mut self.pool, size);
            }
        }
    }

    /// Sizes of the queues and the cache.
    #[must_use]
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.running.len(),
            waiting: self.queue.len(),
            blocks_used: self.pool.total_blocks() - self.pool.free_blocks(),
            blocks_cached: self.pool.cached_blocks(),
            blocks_total: self.pool.total_blocks(),
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            preemptions: self.preemptions,
        }
    }

    /// Whether a sequence runs.
    #[must_use]
    pub fn is_running(&self, id: SeqId) -> bool {
        self.running.iter().any(|(_, _, running)| *running == id)
    }

    /// Holders of a block.
    #[cfg(test)]
    pub(crate) fn references(&self, block: BlockId) -> u32 {
        self.pool.references(block)
    }
}
