//! What the scheduler keeps of one sequence: its tokens, its blocks and its place.

use std::collections::HashMap;

use request::TokenId;

use crate::block_hash::BlockHash;
use crate::block_pool::{BlockId, BlockPool};
use crate::fair::{DECODE_WEIGHT, PREFILL_WEIGHT, Party};
use crate::output::{NewSequence, SeqId};

/// Full blocks that running sequences are going to compute, each with who will.
pub(crate) type Computing = HashMap<BlockHash, SeqId>;

#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SeqId,
    /// Prompt and what has been added.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: usize,
    /// Most tokens it will have.
    pub(crate) tokens_max: usize,
    /// Tokens whose keys and values are in `blocks`.
    pub(crate) computed: usize,
    /// Rows of the step that is being executed, drafts not counted.
    pub(crate) in_step: usize,
    /// Guesses of the tokens that come next.
    pub(crate) drafts: Vec<TokenId>,
    pub(crate) blocks: Vec<BlockId>,
    /// Hash of each full block of `tokens`, as far as it was needed.
    chain: Vec<BlockHash>,
    /// Of `blocks`, those whose content is known to the pool.
    published: usize,
    /// Of `chain`, those that others may wait for.
    announced: usize,
    /// The block that another is computing, if it waits for one.
    pub(crate) awaits: Option<BlockHash>,
    root: BlockHash,
    pub(crate) all_rows: bool,
    pub(crate) started: bool,
    pub(crate) party: Party,
    /// Number of its arrival.
    pub(crate) order: u64,
    pub(crate) deadline: Option<u64>,
    /// Tokens that have been counted as service.
    served: usize,
}

impl Sequence {
    pub(crate) fn new(new: NewSequence, order: u64) -> Self {
        Self {
            id: new.id,
            prompt_len: new.prompt.len(),
            tokens_max: new.prompt.len() + new.max_tokens,
            tokens: new.prompt,
            computed: 0,
            in_step: 0,
            drafts: Vec::new(),
            blocks: Vec::new(),
            chain: Vec::new(),
            published: 0,
            announced: 0,
            awaits: None,
            root: BlockHash::root(new.cache_key),
            all_rows: new.all_rows,
            started: false,
            party: new.party,
            order,
            deadline: new.deadline,
            served: 0,
        }
    }

    /// Tokens that are still to be run.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Most drafts that could all be taken.
    pub(crate) fn draft_room(&self) -> usize {
        self.tokens_max.saturating_sub(self.tokens.len() + 1)
    }

    /// Counts tokens up to `end` as served; returns the service that is new. Computing again what a
    /// preemption lost is not.
    pub(crate) fn serve_to(&mut self, end: usize) -> u64 {
        let from = self.served.min(end);
        self.served = self.served.max(end);
        let prompt = end.min(self.prompt_len) - from.min(self.prompt_len);
        let generated = end - from - prompt;
        prompt as u64 * PREFILL_WEIGHT + generated as u64 * DECODE_WEIGHT
    }

    /// Tokens found in the cache are no service.
    pub(crate) fn skip_to(&mut self, end: usize) {
        self.served = self.served.max(end);
    }

    /// Hashes all full blocks of the tokens.
    pub(crate) fn extend_chain(&mut self, size: usize) {
        while (self.chain.len() + 1) * size <= self.tokens.len() {
            let from = self.chain.len() * size;
            let parent = self.chain.last().copied().unwrap_or(self.root);
            self.chain.push(parent.child(&self.tokens[from..from + size]));
        }
    }

    /// Blocks that may be taken from the cache: at least one token is run, because its logits are
    /// wanted. Only as many as have been hashed.
    pub(crate) fn shareable(&self, size: usize) -> &[BlockHash] {
        let count = if self.all_rows { 0 } else { (self.tokens.len() - 1) / size };
        &self.chain[..count.min(self.chain.len())]
    }

    /// Holds the first `count` blocks of the chain, which the pool has.
    pub(crate) fn share(&mut self, pool: &mut BlockPool, count: usize, size: usize) {
        debug_assert!(self.blocks.is_empty(), "who waits holds nothing");
        let found = self.chain[..count].iter().map(|hash| pool.share(*hash));
        self.blocks.extend(found.map(|block| block.expect("it was found just now")));
        self.published = count;
        self.computed = count * size;
    }

    /// Lets others wait for the full blocks that this one is going to compute.
    pub(crate) fn announce(&mut self, computing: &mut Computing) {
        for hash in &self.chain[self.published..] {
            computing.entry(*hash).or_insert(self.id);
        }
        self.announced = self.chain.len();
    }

    fn retract(&self, computing: &mut Computing, range: std::ops::Range<usize>) {
        for hash in &self.chain[range] {
            if computing.get(hash) == Some(&self.id) {
                computing.remove(hash);
            }
        }
    }

    /// Makes the blocks that have become full and computed shareable.
    pub(crate) fn publish(&mut self, pool: &mut BlockPool, computing: &mut Computing, size: usize) {
        self.extend_chain(size);
        let full = self.computed / size;
        for index in self.published..full {
            pool.publish(self.blocks[index], self.chain[index]);
        }
        if self.published < full {
            self.retract(computing, self.published..full.min(self.announced).max(self.published));
            self.published = full;
        }
    }

    /// Gives back blocks that only drafts needed.
    pub(crate) fn trim(&mut self, pool: &mut BlockPool, size: usize) {
        let needed = self.tokens.len().div_ceil(size);
        while self.blocks.len() > needed {
            pool.release(self.blocks.pop().expect("there are more than needed"));
        }
    }

    /// Takes all blocks from the sequence, the last first.
    pub(crate) fn release(&mut self, pool: &mut BlockPool, computing: &mut Computing) {
        for block in self.blocks.drain(..).rev() {
            pool.release(block);
        }
        let announced = self.published.min(self.announced)..self.announced;
        self.retract(computing, announced);
        (self.published, self.announced) = (0, 0);
        (self.computed, self.in_step) = (0, 0);
        self.drafts.clear();
        self.awaits = None;
    }
}
