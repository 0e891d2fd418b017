//! Seeded traffic against a model of the cache: after every step, what attention would read must be
//! the sequence's own tokens under its own key, the counts must add up, and nobody may have been
//! passed over.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use request::TokenId;

use crate::{
    AddError, NewSequence, Party, ScheduledSequence, Scheduler, SchedulerConfig, SchedulerOutput,
    SeqId, StepCost, StepLimits,
};

struct Client {
    key: u8,
    party: Party,
    tokens: Vec<TokenId>,
    /// What each position of the cache has to hold: a digest of the key and every token up to it.
    cells: Vec<u64>,
    wanted: usize,
    deadline: Option<u64>,
    started: bool,
}

impl Client {
    fn push(&mut self, token: TokenId) {
        let before = self.cells.last().copied().unwrap_or(u64::from(self.key));
        self.tokens.push(token);
        self.cells.push(cell(before, token));
    }
}

fn cell(before: u64, token: TokenId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, token).hash(&mut hasher);
    hasher.finish()
}

/// What has happened, to see that the hard paths were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    steps: usize,
    finished: usize,
    expired: usize,
    drafted: usize,
    accepted: usize,
    preemptions: u64,
    hits: u64,
}

struct World {
    rng: StdRng,
    scheduler: Scheduler,
    config: SchedulerConfig,
    /// Content of each position of each block.
    cells: Vec<u64>,
    clients: HashMap<SeqId, Client>,
    next: SeqId,
    now: u64,
    cost: Option<(StepCost, u64)>,
    draft_rows_max: usize,
    totals: Totals,
}

impl World {
    fn new(seed: u64, config: SchedulerConfig) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            scheduler: Scheduler::new(config).expect("valid limits"),
            config,
            cells: vec![0; config.kv_blocks * config.block_tokens],
            clients: HashMap::new(),
            next: 0,
            now: 0,
            cost: None,
            draft_rows_max: 0,
            totals: Totals::default(),
        }
    }

    fn arrive(&mut self) {
        // Few keys, few beginnings: so that prefixes are shared, and must not be across keys.
        let key = self.rng.random_range(0..3_u8);
        let beginning = self.rng.random_range(0..3);
        let length = self.rng.random_range(1..self.config.context_tokens_max);
        let mut prompt: Vec<TokenId> = (0..length as u32).map(|at| beginning * 1000 + at).collect();
        if self.rng.random_bool(0.5) {
            prompt[length - 1] = self.rng.random_range(0..5);
        }
        let wanted = self.rng.random_range(1..=self.config.context_tokens_max);
        let priority = self.rng.random_range(-1..=1);
        let party = Party { priority, tenant: [key / 2; 32], adapter: [key % 2; 32] };
        let waits = self.rng.random_range(0..60);
        let deadline = self.rng.random_bool(0.3).then_some(self.now + waits);
        let new = NewSequence {
            id: self.next,
            prompt: prompt.clone(),
            max_tokens: wanted,
            cache_key: [key; 32],
            all_rows: self.rng.random_bool(0.1),
            party,
            deadline,
        };
        self.next += 1;
        let capacity = self.config.kv_blocks * self.config.block_tokens;
        let limit = self.config.context_tokens_max.min(capacity);
        match self.scheduler.add(new) {
            Ok(()) => {
                assert!(length + wanted <= limit);
                let (tokens, cells) = (Vec::new(), Vec::new());
                let mut client =
                    Client { key, party, tokens, cells, wanted, deadline, started: false };
                prompt.into_iter().for_each(|token| client.push(token));
                self.clients.insert(self.next - 1, client);
            }
            Err(AddError::TooLong { tokens, .. }) => assert!(tokens > limit),
            Err(AddError::QueueFull { queued, queue_max }) => assert!(queued >= queue_max),
            Err(error) => panic!("{error}"),
        }
    }

    fn step(&mut self) {
        self.now += 1;
        self.totals.steps += 1;
        let (rng, vocabulary) = (&mut self.rng, 12);
        self.scheduler.propose(|_, _, room, drafts| {
            let count = rng.random_range(0..=room.min(4));
            drafts.extend((0..count).map(|_| rng.random_range(0..vocabulary)));
        });
        let waited = self.waiting();
        let (now, cost, draft_rows_max) = (self.now, self.cost, self.draft_rows_max);
        let output = self.scheduler.schedule(&StepLimits { now, cost, draft_rows_max });
        self.check_plan(&output);
        self.check_cost(&output, &waited);
        self.check_turns(&output, &waited);
        let sampled = self.execute(&output);
        self.scheduler.update(&output, &sampled);
        self.take(&sampled);
        self.check_counts();
    }

    fn waiting(&self) -> Vec<SeqId> {
        let runs = |id: &SeqId| self.scheduler.running.iter().any(|(_, _, running)| running == id);
        self.clients.keys().filter(|id| !runs(id)).copied().collect()
    }

    fn check_plan(&mut self, output: &SchedulerOutput) {
        let rows: usize = output.sequences.iter().map(|sequence| sequence.rows).sum();
        assert!(rows <= self.config.step_tokens_max);
        assert!(output.sequences.len() <= self.config.sequences_max);
        let drafts: usize = output.sequences.iter().map(|sequence| sequence.drafts).sum();
        assert!(drafts == 0 || rows <= self.draft_rows_max);
        for id in &output.expired {
            let client = self.clients.remove(id).expect("it waited");
            assert!(!client.started && client.deadline.is_some_and(|deadline| deadline < self.now));
            self.totals.expired += 1;
        }
        for (id, _) in &output.started {
            self.clients.get_mut(id).expect("it waited").started = true;
        }
        for client in self.clients.values().filter(|client| !client.started) {
            assert!(
                client.deadline.is_none_or(|deadline| deadline >= self.now),
                "was not given up"
            );
        }
        let stats = self.scheduler.stats();
        let idle = (stats.running, stats.waiting) == (0, 0);
        assert!(rows > 0 || idle || !output.preempted.is_empty(), "a step does something");
    }

    /// A step costs no more than it may, but for what always runs.
    fn check_cost(&self, output: &SchedulerOutput, waited: &[SeqId]) {
        let Some((cost, limit)) = self.cost else { return };
        let is_decode = |part: &&ScheduledSequence| {
            part.rows - part.drafts == 1 && part.samples && !waited.contains(&part.id)
        };
        let (decodes, prompts): (Vec<&ScheduledSequence>, Vec<&ScheduledSequence>) =
            output.sequences.iter().partition(is_decode);
        if decodes.is_empty() {
            return;
        }
        let of = |part: &ScheduledSequence| cost.of_rows(part.start, part.rows);
        let total = cost.fixed + output.sequences.iter().map(of).sum::<u64>();
        let always = decodes.iter().map(|part| cost.of_rows(part.start, 1)).sum::<u64>();
        let first = prompts
            .first()
            .map_or(0, |part| cost.of_rows(part.start, part.rows.min(self.config.block_tokens)));
        let floor = cost.fixed + always + first;
        assert!(total <= limit.max(floor), "{total} is above {limit} and {floor}");
    }

    /// Nobody was passed over by a less urgent class.
    fn check_turns(&self, output: &SchedulerOutput, waited: &[SeqId]) {
        let priority = |id: &SeqId| self.clients[id].party.priority;
        let running = || self.scheduler.running.iter().map(|(priority, ..)| *priority);
        // Who waits for another's blocks lets those behind it pass.
        let awaits = |id: &SeqId| self.scheduler.sequences[id].awaits.is_some();
        for id in output.preempted.iter().filter(|id| !awaits(id)) {
            assert!(running().all(|running| running <= priority(id)), "the least urgent gives way");
        }
        let waiting = self.waiting();
        for id in waited.iter().filter(|id| self.clients.contains_key(id)) {
            if !waiting.contains(id) {
                let passes = |other: &&SeqId| priority(other) < priority(id) && !awaits(other);
                let passed = waiting.iter().find(passes);
                assert_eq!(passed, None, "{id} began to run");
            }
        }
    }

    /// Writes the rows into the cache, and reads all that attention would.
    fn execute(&mut self, output: &SchedulerOutput) -> Vec<(SeqId, TokenId)> {
        let size = self.config.block_tokens;
        let mut sampled = Vec::new();
        for part in &output.sequences {
            let client = &self.clients[&part.id];
            let (known, drafts) = self.scheduler.rows(part);
            let end = part.end() - part.drafts;
            assert_eq!(known, &client.tokens[part.start..end]);
            assert_eq!(part.samples, end == client.tokens.len());
            assert!(part.drafts == 0 || part.samples);
            let table = self.scheduler.block_table(part.id);
            let mut before = part.start.checked_sub(1).map(|at| client.cells[at]);
            for (offset, token) in known.iter().chain(drafts).enumerate() {
                let at = part.start + offset;
                let block = table[at / size];
                assert_eq!(self.scheduler.references(block), 1, "who writes shares with nobody");
                let value = cell(before.unwrap_or(u64::from(client.key)), *token);
                self.cells[block as usize * size + at % size] = value;
                before = Some(value);
            }
            if part.samples {
                self.totals.drafted += drafts.len();
                self.sample(part, drafts.to_vec(), &mut sampled);
            }
        }
        for part in &output.sequences {
            let (client, table) = (&self.clients[&part.id], self.scheduler.block_table(part.id));
            for at in 0..part.end() - part.drafts {
                let found = self.cells[table[at / size] as usize * size + at % size];
                assert_eq!(found, client.cells[at], "position {at}");
            }
        }
        sampled
    }

    /// The model's choices: drafts are taken while they are right, which they are made to be often.
    fn sample(
        &mut self,
        part: &ScheduledSequence,
        drafts: Vec<TokenId>,
        sampled: &mut Vec<(SeqId, TokenId)>,
    ) {
        for draft in drafts.into_iter().map(Some).chain([None]) {
            let right = self.rng.random_bool(0.6);
            let token = match draft {
                Some(draft) if right => draft,
                _ => self.rng.random_range(0..12),
            };
            sampled.push((part.id, token));
            if draft != Some(token) || token == 2 {
                break;
            }
            self.totals.accepted += 1;
        }
    }

    fn take(&mut self, sampled: &[(SeqId, TokenId)]) {
        for (id, token) in sampled {
            let client = self.clients.get_mut(id).expect("nothing is sampled behind the end");
            client.push(*token);
            client.wanted -= 1;
            if client.wanted == 0 || *token == 2 {
                self.end(*id);
                self.totals.finished += 1;
            }
        }
    }

    fn end(&mut self, id: SeqId) {
        self.clients.remove(&id);
        self.scheduler.remove(id);
    }

    fn check_counts(&self) {
        let mut holders = vec![0; self.config.kv_blocks];
        for (id, client) in &self.clients {
            let table = self.scheduler.block_table(*id);
            let needed = client.tokens.len().div_ceil(self.config.block_tokens);
            assert!(table.len() <= needed, "blocks that only wrong guesses needed are given back");
            for block in table {
                holders[*block as usize] += 1;
            }
        }
        for (block, held) in holders.iter().enumerate() {
            assert_eq!(self.scheduler.references(block as u32), *held, "block {block}");
        }
        let stats = self.scheduler.stats();
        assert_eq!(stats.blocks_used, holders.iter().filter(|held| **held > 0).count());
        assert_eq!(stats.running + stats.waiting, self.clients.len());
        let deadlines = self.scheduler.deadlines.len();
        let pending = |client: &&Client| !client.started && client.deadline.is_some();
        assert_eq!(deadlines, self.clients.values().filter(pending).count());
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
        for _ in 0..10_000 {
            if self.clients.is_empty() {
                break;
            }
            self.step();
        }
        assert!(self.clients.is_empty(), "every sequence ends");
        assert_eq!(self.scheduler.stats().blocks_used, 0);
        assert!(self.scheduler.computing.is_empty(), "nobody computes any more");
        assert_eq!(self.scheduler.queue.remembered(), 0);
    }
}

pub(crate) const SMALL: SchedulerConfig = SchedulerConfig {
    block_tokens: 4,
    kv_blocks: 12,
    step_tokens_max: 10,
    sequences_max: 4,
    queue_max: 8,
    context_tokens_max: 40,
    prefix_cache: true,
};

/// Worlds with different limits, so many steps each.
fn simulate(seeds: std::ops::Range<u64>, steps: usize) -> Totals {
    let mut totals = Totals::default();
    for seed in seeds {
        let vary = seed as usize;
        let config = SchedulerConfig {
            block_tokens: 1 + vary % 5,
            kv_blocks: 10 + vary % 24 * 2,
            step_tokens_max: 4 + vary % 7,
            prefix_cache: seed % 6 != 5,
            ..SMALL
        };
        let mut world = World::new(seed, config);
        if seed % 3 == 1 {
            let cost = StepCost { fixed: 10, per_row: 4, per_position: 1 };
            world.cost = Some((cost, 40 + seed % 50));
        }
        world.draft_rows_max = [0, 6, 100][vary / 3 % 3];
        world.run(steps);
        let stats = world.scheduler.stats();
        totals.steps += world.totals.steps;
        totals.finished += world.totals.finished;
        totals.expired += world.totals.expired;
        totals.drafted += world.totals.drafted;
        totals.accepted += world.totals.accepted;
        totals.preemptions += stats.preemptions;
        totals.hits += stats.prefix_hits;
    }
    let Totals { steps, finished, expired, drafted, accepted, preemptions, hits } = totals;
    assert!(finished > steps / 20, "the traffic ends by itself: {totals:?}");
    let hard = [expired, drafted, accepted, preemptions as usize, hits as usize];
    assert!(hard.iter().all(|count| *count > steps / 200), "the hard paths were taken: {totals:?}");
    totals
}

/// A few seconds without optimisation, which is why nothing here allocates per position.
#[test]
fn a_million_steps_in_which_every_sequence_reads_its_own_tokens_and_ends() {
    let totals = simulate(0..500, 2000);
    assert!(totals.steps >= 1_000_000, "{totals:?}");
}
