//! KV blocks: who holds them, what they hold, and which goes first when one is needed.

use std::collections::{BTreeMap, HashMap};

use crate::block_hash::BlockHash;

/// Index of a block in the cache.
pub type BlockId = u32;

#[derive(Clone, Debug, Default)]
struct Block {
    /// Sequences that hold it.
    references: u32,
    /// Its content, once it is full and computed.
    hash: Option<BlockHash>,
    /// Its place in the order of eviction while nobody holds it.
    freed: u64,
}

/// The blocks of one KV cache. A block that nobody holds keeps its content until it is needed.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks that nobody holds, the one freed first in front.
    free: BTreeMap<u64, BlockId>,
    by_hash: HashMap<BlockHash, BlockId>,
    clock: u64,
}

impl BlockPool {
    /// `count` empty blocks.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = u32::try_from(count).expect("the cache has fewer than 2^32 blocks");
        let blocks = (0..count).map(|id| Block { freed: u64::from(id), ..Block::default() });
        Self {
            blocks: blocks.collect(),
            free: (0..count).map(|id| (u64::from(id), id)).collect(),
            by_hash: HashMap::new(),
            clock: u64::from(count),
        }
    }

    /// Blocks that nobody holds.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// All blocks.
    #[must_use]
    pub fn total_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// An empty block for one holder; the content that was freed first is forgotten.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let (_, id) = self.free.pop_first()?;
        let block = &mut self.blocks[id as usize];
        debug_assert_eq!(block.references, 0, "a free block has no holder");
        if let Some(hash) = block.hash.take() {
            self.by_hash.remove(&hash);
        }
        block.references = 1;
        Some(id)
    }

    /// Whether there is a block with that content, and if so, whether somebody holds it.
    #[must_use]
    pub fn find(&self, hash: BlockHash) -> Option<bool> {
        self.by_hash.get(&hash).map(|id| self.blocks[*id as usize].references > 0)
    }

    /// One more holder of the block with that content, if there is one.
    pub fn share(&mut self, hash: BlockHash) -> Option<BlockId> {
        let id = *self.by_hash.get(&hash)?;
        let block = &mut self.blocks[id as usize];
        if block.references == 0 {
            self.free.remove(&block.freed);
        }
        block.references += 1;
        Some(id)
    }

    /// Says what a full, computed block holds. If another block holds the same, that one stays the
    /// one to share.
    pub fn publish(&mut self, id: BlockId, hash: BlockHash) {
        debug_assert!(self.blocks[id as usize].references > 0, "its holder publishes");
        if let std::collections::hash_map::Entry::Vacant(slot) = self.by_hash.entry(hash) {
            slot.insert(id);
            self.blocks[id as usize].hash = Some(hash);
        }
    }

    /// One holder less. Blocks are released last first, so that the beginning of a prompt, which
    /// others are more likely to share, is evicted last.
    pub fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        assert!(block.references > 0, "block {id} is released more often than held");
        block.references -= 1;
        if block.references == 0 {
            self.clock += 1;
            block.freed = self.clock;
            self.free.insert(self.clock, id);
        }
    }

    /// Holders of a block.
    #[cfg(test)]
    pub(crate) fn references(&self, id: BlockId) -> u32 {
        self.blocks[id as usize].references
    }
}
