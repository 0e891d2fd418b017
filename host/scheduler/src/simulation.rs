//! Seeded traffic against a model of the cache: after every step, what attention would read must be
//! the sequence's own tokens under its own key.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use request::TokenId;

use crate::{AddError, NewSequence, Scheduler, SchedulerConfig, SeqId};

/// What a position of the cache holds: the key it was computed under, and every token up to it.
type Cell = ([u8; 32], Vec<TokenId>);

struct Client {
    key: [u8; 32],
    tokens: Vec<TokenId>,
    wanted: usize,
}

struct World {
    rng: StdRng,
    scheduler: Scheduler,
    config: SchedulerConfig,
    cells: HashMap<(u32, usize), Cell>,
    clients: HashMap<SeqId, Client>,
    next: SeqId,
    finished: usize,
}

impl World {
    fn new(seed: u64, config: SchedulerConfig) -> Self {
        let scheduler = Scheduler::new(config).expect("valid limits");
        let rng = StdRng::seed_from_u64(seed);
        let (cells, clients) = (HashMap::new(), HashMap::new());
        Self { rng, scheduler, config, cells, clients, next: 0, finished: 0 }
    }

    fn arrive(&mut self) {
        // Few keys, few beginnings: so that prefixes are shared, and must not be across keys.
        let key = [self.rng.random_range(0..2); 32];
        let beginning = self.rng.random_range(0..3);
        let length = self.rng.random_range(1..self.config.context_tokens_max);
        let mut tokens: Vec<TokenId> = (0..length as u32).map(|at| beginning * 1000 + at).collect();
        if self.rng.random_bool(0.5) {
            let last = tokens.len() - 1;
            tokens[last] = self.rng.random_range(0..5);
        }
        let wanted = self.rng.random_range(1..=self.config.context_tokens_max);
        let new = NewSequence {
            id: self.next,
            prompt: tokens.clone(),
            max_tokens: wanted,
            cache_key: key,
            all_rows: self.rng.random_bool(0.1),
        };
        self.next += 1;
        let capacity = self.config.kv_blocks * self.config.block_tokens;
        let limit = self.config.context_tokens_max.min(capacity);
        match self.scheduler.add(new) {
            Ok(()) => {
                let total = length + wanted;
                assert!(total <= limit);
                self.clients.insert(self.next - 1, Client { key, tokens, wanted });
            }
            Err(AddError::TooLong { tokens, .. }) => assert!(tokens > limit),
            Err(AddError::QueueFull { queued, queue_max }) => assert!(queued >= queue_max),
            Err(error) => panic!("{error}"),
        }
    }

    fn step(&mut self) {
        let output = self.scheduler.schedule();
        let rows: usize = output.sequences.iter().map(|sequence| sequence.tokens.len()).sum();
        assert!(rows <= self.config.step_tokens_max);
        assert!(output.sequences.len() <= self.config.sequences_max);
        let stats = self.scheduler.stats();
        assert!(
            rows > 0 || (stats.running, stats.waiting) == (0, 0) || !output.preempted.is_empty()
        );
        let mut sampled = Vec::new();
        for scheduled in &output.sequences {
            let client = &self.clients[&scheduled.id];
            let end = scheduled.start + scheduled.tokens.len();
            assert_eq!(scheduled.tokens, client.tokens[scheduled.start..end]);
            assert_eq!(scheduled.samples, end == client.tokens.len());
            for at in scheduled.start..end {
                let cell = (client.key, client.tokens[..=at].to_vec());
                self.cells.insert(self.cell(&scheduled.block_table, at), cell);
            }
            if scheduled.samples {
                sampled.push((scheduled.id, self.rng.random_range(0..12)));
            }
        }
        for scheduled in &output.sequences {
            let client = &self.clients[&scheduled.id];
            for at in 0..scheduled.start + scheduled.tokens.len() {
                let cell = &self.cells[&self.cell(&scheduled.block_table, at)];
                assert_eq!(*cell, (client.key, client.tokens[..=at].to_vec()), "position {at}");
            }
        }
        self.scheduler.update(&output, &sampled);
        for (id, token) in sampled {
            let client = self.clients.get_mut(&id).expect("it runs");
            client.tokens.push(token);
            client.wanted -= 1;
            if client.wanted == 0 || token == 2 {
                self.end(id);
                self.finished += 1;
            }
        }
        self.check_references();
    }

    fn cell(&self, table: &[u32], at: usize) -> (u32, usize) {
        (table[at / self.config.block_tokens], at % self.config.block_tokens)
    }

    fn end(&mut self, id: SeqId) {
        self.clients.remove(&id);
        self.scheduler.remove(id);
    }

    fn check_references(&self) {
        let mut holders: HashMap<u32, u32> = HashMap::new();
        for id in self.clients.keys() {
            for block in self.scheduler.blocks(*id) {
                *holders.entry(*block).or_default() += 1;
            }
        }
        for block in 0..self.config.kv_blocks as u32 {
            let held = holders.get(&block).copied().unwrap_or_default();
            assert_eq!(self.scheduler.references(block), held, "block {block}");
        }
        assert_eq!(self.scheduler.stats().blocks_used, holders.len());
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            while self.rng.random_bool(0.4) {
                self.arrive();
            }
            if self.rng.random_bool(0.05)
                && let Some(id) = self.clients.keys().min().copied()
            {
                self.end(id);
            }
            self.step();
        }
        for _ in 0..100_000 {
            if self.clients.is_empty() {
                break;
            }
            self.step();
        }
        assert!(self.clients.is_empty(), "every sequence ends");
        assert_eq!(self.scheduler.stats().blocks_used, 0);
    }
}

const SMALL: SchedulerConfig = SchedulerConfig {
    block_tokens: 4,
    kv_blocks: 12,
    step_tokens_max: 10,
    sequences_max: 4,
    queue_max: 8,
    context_tokens_max: 40,
    prefix_cache: true,
};

#[test]
fn every_sequence_reads_its_own_tokens_and_ends() {
    let mut totals = (0, 0, 0);
    for seed in 0..24 {
        let config = SchedulerConfig {
            block_tokens: 1 + seed as usize % 5,
            kv_blocks: 10 + seed as usize * 2,
            step_tokens_max: 4 + seed as usize % 7,
            prefix_cache: seed % 6 != 5,
            ..SMALL
        };
        let mut world = World::new(seed, config);
        world.run(1000);
        let stats = world.scheduler.stats();
        totals.0 += world.finished;
        totals.1 += stats.preemptions;
        totals.2 += stats.prefix_hits;
    }
    let (finished, preemptions, hits) = totals;
    assert!(finished > 1000, "the traffic ends by itself: {finished}");
    assert!(preemptions > 100 && hits > 100, "the hard paths were taken: {preemptions} {hits}");
}

#[test]
fn limits_at_below_and_above() {
    let new = |id, prompt: usize, max_tokens| NewSequence {
        id,
        prompt: vec![1; prompt],
        max_tokens,
        cache_key: [0; 32],
        all_rows: false,
    };
    let mut scheduler = Scheduler::new(SMALL).expect("valid limits");
    assert_eq!(scheduler.add(new(0, 39, 1)), Ok(()));
    let too_long = Err(AddError::TooLong { tokens: 41, limit: 40 });
    assert_eq!(scheduler.add(new(1, 40, 1)), too_long);
    assert_eq!(scheduler.add(new(1, 0, 1)), Err(AddError::Empty));
    assert_eq!(scheduler.add(new(0, 1, 1)), Err(AddError::Duplicate { id: 0 }));
    for id in 1..8 {
        assert_eq!(scheduler.add(new(id, 1, 1)), Ok(()));
    }
    let full = Err(AddError::QueueFull { queued: 8, queue_max: 8 });
    assert_eq!(scheduler.add(new(8, 1, 1)), full);
    let tight = SchedulerConfig { kv_blocks: 5, ..SMALL };
    let mut scheduler = Scheduler::new(tight).expect("valid limits");
    assert_eq!(scheduler.add(new(0, 19, 1)), Ok(()));
    assert_eq!(scheduler.add(new(1, 20, 1)), Err(AddError::TooLong { tokens: 21, limit: 20 }));
}

#[test]
fn limits_that_cannot_be_are_named() {
    let check = |config: SchedulerConfig, name: &str| {
        assert_eq!(Scheduler::new(config).expect_err("can't be").name, name);
    };
    check(SchedulerConfig { block_tokens: 0, ..SMALL }, "block_tokens");
    check(SchedulerConfig { kv_blocks: 0, ..SMALL }, "kv_blocks");
    check(SchedulerConfig { queue_max: 0, ..SMALL }, "queue_max");
    check(SchedulerConfig { step_tokens_max: 3, ..SMALL }, "step_tokens_max");
}

#[test]
fn a_prefix_is_shared_under_the_same_key_only() {
    let mut scheduler = Scheduler::new(SMALL).expect("valid limits");
    let mut cached = |id: SeqId, key: u8, prompt: Vec<TokenId>| {
        let (max_tokens, cache_key, all_rows) = (1, [key; 32], false);
        scheduler.add(NewSequence { id, prompt, max_tokens, cache_key, all_rows }).expect("fits");
        let output = scheduler.schedule();
        scheduler.update(&output, &[]);
        scheduler.remove(id);
        output.started[0].1
    };
    let prompt: Vec<TokenId> = (0..9).collect();
    assert_eq!(cached(0, 1, prompt.clone()), 0);
    assert_eq!(cached(1, 1, prompt.clone()), 8);
    assert_eq!(cached(2, 2, prompt.clone()), 0);
    assert_eq!(cached(3, 1, prompt[..8].to_vec()), 4, "the last token is always run");
    let mut other = prompt;
    other[0] = 99;
    assert_eq!(cached(4, 1, other), 0);
}
