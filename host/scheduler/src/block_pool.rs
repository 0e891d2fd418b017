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
    /// Blocks that nobody holds and that have content.
    cached: usize,
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
            cached: 0,
            clock: u64::from(count),
        }
    }

    /// Blocks that nobody holds.
    #[must_use]
    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// Those of them that have content which may be asked for again.
    #[must_use]
    pub fn cached_blocks(&self) -> usize {
        self.cached
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
            self.cached -= 1;
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
            self.cached -= 1;
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
            self.cached += usize::from(block.hash.is_some());
            self.free.insert(self.clock, id);
        }
    }

    /// Holders of a block.
    #[cfg(test)]
    pub(crate) fn references(&self, id: BlockId) -> u32 {
        self.blocks[id as usize].references
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_cached_or_free() {
        let mut pool = BlockPool::new(3);
        let check = |pool: &BlockPool, expect: [usize; 3]| {
            let (total, free, cached) =
                (pool.total_blocks(), pool.free_blocks(), pool.cached_blocks());
            assert_eq!([total - free, cached, free - cached], expect);
        };
        let hash = BlockHash::root([7; 32]);
        check(&pool, [0, 0, 3]);
        let (one, two) = (pool.allocate().expect("free"), pool.allocate().expect("free"));
        pool.publish(one, hash);
        check(&pool, [2, 0, 1]);
        pool.release(two);
        check(&pool, [1, 0, 2]);
        pool.release(one);
        check(&pool, [0, 1, 2]);
        assert_eq!(pool.share(hash), Some(one));
        assert_eq!(pool.share(hash), Some(one));
        check(&pool, [1, 0, 2]);
        pool.release(one);
        pool.release(one);
        check(&pool, [0, 1, 2]);
        (0..3).for_each(|_| assert!(pool.allocate().is_some()));
        check(&pool, [3, 0, 0]);
        assert_eq!(pool.find(hash), None);
    }
}
