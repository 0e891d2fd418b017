//! What goes in and comes out: plain data.

use request::TokenId;

use crate::fair::Party;

/// Names a sequence towards its scheduler; chosen by the caller, never used twice.
pub type SeqId = u64;

/// A sequence that is to run.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// Its name.
    pub id: SeqId,
    /// Tokens to continue; not empty.
    pub prompt: Vec<TokenId>,
    /// Most tokens that will be added to it.
    pub max_tokens: usize,
    /// Root of its prefix hashes: digest of adapter generation and tenant salt.
    pub cache_key: [u8; 32],
    /// Whether every row of the prompt is wanted, for prompt logprobs: then none is taken from the
    /// prefix cache.
    pub all_rows: bool,
    /// Who it runs for.
    pub party: Party,
    /// Last tick at which it may run for the first time; later it is given up.
    pub deadline: Option<u64>,
}

/// What a step costs, in any one unit: `fixed`, `per_row` for each row, and `per_position` for each
/// position that a row attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCost {
    /// Cost of any step.
    pub fixed: u64,
    /// Cost of a row.
    pub per_row: u64,
    /// Cost of a position before a row's own.
    pub per_position: u64,
}

impl StepCost {
    /// Cost of `rows` rows of one sequence from position `start` on.
    #[must_use]
    pub fn of_rows(&self, start: usize, rows: usize) -> u64 {
        let (start, rows) = (start as u64, rows as u64);
        let before = rows.saturating_mul(rows.saturating_sub(1)) / 2;
        let positions = rows.saturating_mul(start).saturating_add(before);
        let attention = positions.saturating_mul(self.per_position);
        rows.saturating_mul(self.per_row).saturating_add(attention)
    }
}

/// What one step may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// The tick it is: any count that deadlines are given in.
    pub now: u64,
    /// What rows cost and how much a step with generating sequences may cost; `None` is no limit
    /// besides the number of rows. Generating sequences always run, and prefill by at least a
    /// block's rows a step, so that everybody ends.
    pub cost: Option<(StepCost, u64)>,
    /// Most rows of a step that has drafts in it; 0 is no drafts.
    pub draft_rows_max: usize,
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledSequence {
    /// Its name.
    pub id: SeqId,
    /// Position of the first row.
    pub start: usize,
    /// Rows to run, drafts included.
    pub rows: usize,
    /// Rows at the end whose tokens are guesses.
    pub drafts: usize,
    /// Whether the last row's logits give a new token; those of drafts then do too.
    pub samples: bool,
}

impl ScheduledSequence {
    /// Position behind the last row.
    #[must_use]
    pub fn end(&self) -> usize {
        self.start + self.rows
    }
}

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulerOutput {
    /// Who runs; each at most once.
    pub sequences: Vec<ScheduledSequence>,
    /// Who lost their blocks to let others run.
    pub preempted: Vec<SeqId>,
    /// Who runs for the first time, with the number of prompt tokens found in the prefix cache.
    pub started: Vec<(SeqId, usize)>,
    /// Who did not run in time. They are not known any more.
    pub expired: Vec<SeqId>,
}

/// A look at the queues and the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Blocks that are held.
    pub blocks_used: usize,
    /// Blocks that nobody holds, whose content may be asked for again.
    pub blocks_cached: usize,
    /// All blocks.
    pub blocks_total: usize,
    /// Prompt tokens looked up in the prefix cache, since the start.
    pub prefix_queries: u64,
    /// Prompt tokens found there, since the start.
    pub prefix_hits: u64,
    /// Preemptions since the start.
    pub preemptions: u64,
}
