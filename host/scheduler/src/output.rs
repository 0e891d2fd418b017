//! What goes in and comes out: plain data.

use request::TokenId;

use crate::block_pool::BlockId;

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
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledSequence {
    /// Its name.
    pub id: SeqId,
    /// Position of the first token.
    pub start: usize,
    /// Tokens to run.
    pub tokens: Vec<TokenId>,
    /// Blocks of positions 0 to `start + tokens.len()`.
    pub block_table: Vec<BlockId>,
    /// Whether the last row's logits give a new token.
    pub samples: bool,
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
    /// All blocks.
    pub blocks_total: usize,
    /// Prompt tokens looked up in the prefix cache, since the start.
    pub prefix_queries: u64,
    /// Prompt tokens found there, since the start.
    pub prefix_hits: u64,
    /// Preemptions since the start.
    pub preemptions: u64,
}
