//! The plan of a step: sequences that generate first, by urgency; then prompts, whoever's turn it
//! is, whether they run or wait; then guesses, where rows are left.

use crate::config::SchedulerConfig;
use crate::output::{ScheduledSequence, SchedulerOutput, SeqId, StepCost, StepLimits};
use crate::scheduler::Scheduler;

/// What is left of a step.
struct Budget {
    rows: usize,
    cost: Option<(StepCost, u64)>,
    /// Rows that prefill gets whatever they cost.
    prefill_rows_min: usize,
}

impl Budget {
    fn new(config: &SchedulerConfig, limits: &StepLimits) -> Self {
        let cost = limits.cost.map(|(cost, limit)| (cost, limit.saturating_sub(cost.fixed)));
        Self { rows: config.step_tokens_max, cost, prefill_rows_min: config.block_tokens }
    }

    /// How many of `wanted` rows from position `start` on the step still holds.
    fn fits(&self, start: usize, wanted: usize) -> usize {
        let wanted = wanted.min(self.rows);
        let Some((cost, left)) = &self.cost else { return wanted };
        // The largest number of rows that costs no more: the cost grows with every row.
        let (mut fits, mut beyond) = (0, wanted + 1);
        while fits + 1 < beyond {
            let middle = fits + (beyond - fits) / 2;
            match cost.of_rows(start, middle) <= *left {
                true => fits = middle,
                false => beyond = middle,
            }
        }
        fits
    }

    fn prefill(&mut self, start: usize, wanted: usize) -> usize {
        let rows = self.fits(start, wanted).max(wanted.min(self.rows).min(self.prefill_rows_min));
        self.take(start, rows);
        rows
    }

    fn take(&mut self, start: usize, rows: usize) {
        self.rows -= rows;
        if let Some((cost, left)) = &mut self.cost {
            *left = left.saturating_sub(cost.of_rows(start, rows));
        }
    }
}

/// What became of a waiting sequence whose turn it is.
enum Admission {
    Runs,
    /// Another is computing what it can share; it is better off waiting.
    Awaits,
    NoRoom,
}

impl Scheduler {
    /// Plans the next step.
    ///
    /// Generating sequences come first and take a row each; if blocks run out, the least urgent is
    /// preempted: of the highest priority number, the latest arrival. What rows are left go to
    /// prompts by fair turns. A sequence that waits takes place and blocks from less urgent classes.
    pub fn schedule(&mut self, limits: &StepLimits) -> SchedulerOutput {
        let mut output = SchedulerOutput::default();
        let mut budget = Budget::new(&self.config, limits);
        self.expire(limits.now, &mut output);
        self.make_way(&mut output);
        let ran_out = self.schedule_decodes(&mut budget, &mut output);
        // Without a generating sequence nobody is kept waiting by a long step.
        if output.sequences.is_empty() {
            budget.cost = None;
        }
        let decodes = output.sequences.len();
        // Whoever was preempted needs the blocks that a newcomer would take.
        self.schedule_prompts(&mut budget, ran_out, &mut output);
        self.schedule_drafts(&mut budget, limits.draft_rows_max, (&mut output, decodes));
        output
    }

    fn expire(&mut self, now: u64, output: &mut SchedulerOutput) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline < now
        {
            self.remove(id);
            output.expired.push(id);
        }
    }

    /// Preempts sequences of higher priority numbers while the first that waits lacks a place or
    /// blocks.
    fn make_way(&mut self, output: &mut SchedulerOutput) {
        let Some((turn, id)) = self.queue.first() else { return };
        while self.running.last().is_some_and(|(priority, ..)| *priority > turn.priority)
            && !self.has_room(id)
        {
            self.preempt_last(output);
        }
    }

    fn has_room(&mut self, id: SeqId) -> bool {
        let shared = match self.shared_prefix(id) {
            Ok(shared) => shared,
            // It waits for another, and preempting that one would not help it.
            Err(_) => return true,
        };
        self.running.len() < self.config.sequences_max && self.has_blocks(id, shared)
    }

    /// Whether the blocks of all its tokens are there, of which it shares the first `shared`. One
    /// for each running sequence stays free, or the newcomer would be preempted at once.
    fn has_blocks(&self, id: SeqId, shared: usize) -> bool {
        let sequence = &self.sequences[&id];
        let size = self.config.block_tokens;
        let hashes = &sequence.shareable(size)[..shared];
        let held = hashes.iter().filter(|hash| self.pool.find(**hash) == Some(true)).count();
        let needed = sequence.tokens.len().div_ceil(size) - held;
        needed + self.running.len() <= self.pool.free_blocks()
    }

    /// Blocks of its beginning that the cache has.
    ///
    /// # Errors
    /// A running sequence that is as urgent is computing the one behind them.
    fn shared_prefix(&mut self, id: SeqId) -> Result<usize, ()> {
        if !self.config.prefix_cache {
            return Ok(0);
        }
        let size = self.config.block_tokens;
        let sequence = self.sequences.get_mut(&id).expect("it waits");
        if sequence.awaits.is_some_and(|hash| self.computing.contains_key(&hash)) {
            return Err(());
        }
        sequence.extend_chain(size);
        let hashes = sequence.shareable(size);
        let found = hashes.iter().take_while(|hash| self.pool.find(**hash).is_some()).count();
        let next = hashes.get(found).copied();
        sequence.awaits = None;
        if let Some(hash) = next
            && let Some(other) = self.computing.get(&hash)
            && self.sequences[other].party.priority <= self.sequences[&id].party.priority
        {
            self.sequences.get_mut(&id).expect("it waits").awaits = Some(hash);
            return Err(());
        }
        Ok(found)
    }

    /// A row for each sequence that generates; whether blocks ran out.
    fn schedule_decodes(&mut self, budget: &mut Budget, output: &mut SchedulerOutput) -> bool {
        let (mut at, preempted) = (0, output.preempted.len());
        while at < self.running.len() && budget.rows > 0 {
            let (_, _, id) = self.running[at];
            at += 1;
            let sequence = &self.sequences[&id];
            if sequence.pending() != 1 {
                continue;
            }
            let (start, end) = (sequence.computed, sequence.tokens.len());
            // The least urgent gives way. It has not been planned yet: the plan goes by urgency.
            while !self.reserve(id, end) && self.preempt_last(output) != id {}
            if at > self.running.len() {
                break;
            }
            budget.take(start, 1);
            self.plan(id, 1, output);
        }
        output.preempted.len() > preempted
    }

    fn schedule_prompts(&mut self, budget: &mut Budget, ran_out: bool, out: &mut SchedulerOutput) {
        let mut prompts: Vec<SeqId> = self.running.iter().map(|(_, _, id)| *id).collect();
        prompts.retain(|id| self.sequences[id].pending() > 1);
        let (mut awaiting, mut open) = (Vec::new(), !ran_out);
        while budget.rows > 0 {
            open &= self.running.len() < self.config.sequences_max;
            let turns = prompts.iter().enumerate().map(|(at, id)| (self.turn(*id), at));
            let running = turns.min();
            let waiting = if open { self.queue.first() } else { None };
            let (id, waits) = match (running, waiting) {
                (Some((turn, _)), Some((other, id))) if other < turn => (id, true),
                (None, Some((_, id))) => (id, true),
                (Some((_, at)), _) => (prompts.swap_remove(at), false),
                (None, None) => break,
            };
            if waits {
                match self.admit(id, out) {
                    Admission::Runs => {}
                    Admission::Awaits => {
                        let sequence = &self.sequences[&id];
                        self.queue.set_aside(&sequence.party, sequence.order);
                        awaiting.push(id);
                        continue;
                    }
                    Admission::NoRoom => {
                        open = false;
                        continue;
                    }
                }
            }
            let sequence = &self.sequences[&id];
            let rows = budget.prefill(sequence.computed, sequence.pending());
            // Its minimum was for the first; the others take what the cost allows.
            budget.prefill_rows_min = 0;
            if rows > 0 {
                self.plan(id, rows, out);
            } else if !waits {
                break;
            }
        }
        for id in awaiting {
            let sequence = &self.sequences[&id];
            self.queue.put_back(&sequence.party, sequence.order, id);
        }
    }

    fn turn(&self, id: SeqId) -> crate::fair::Turn {
        let sequence = &self.sequences[&id];
        self.queue.turn(&sequence.party, sequence.order)
    }

    /// Lets a waiting sequence run, with the blocks of all its tokens.
    fn admit(&mut self, id: SeqId, output: &mut SchedulerOutput) -> Admission {
        let Ok(shared) = self.shared_prefix(id) else { return Admission::Awaits };
        if !self.has_blocks(id, shared) {
            return Admission::NoRoom;
        }
        let size = self.config.block_tokens;
        let sequence = self.sequences.get_mut(&id).expect("it waits");
        sequence.share(&mut self.pool, shared, size);
        let (cached, end) = (sequence.computed, sequence.tokens.len());
        sequence.skip_to(cached);
        let reserved = self.reserve(id, end);
        debug_assert!(reserved, "counted before");
        let sequence = self.sequences.get_mut(&id).expect("it waits");
        if self.config.prefix_cache {
            sequence.announce(&mut self.computing);
        }
        self.queue.choose(&sequence.party, sequence.order);
        let place = (sequence.party.priority, sequence.order, id);
        if !std::mem::replace(&mut sequence.started, true) {
            self.prefix_queries += sequence.tokens.len() as u64;
            self.prefix_hits += cached as u64;
            output.started.push((id, cached));
            if let Some(deadline) = sequence.deadline.take() {
                self.deadlines.remove(&(deadline, id));
            }
        }
        let at = self.running.binary_search(&place).expect_err("it did not run");
        self.running.insert(at, place);
        Admission::Runs
    }

    /// Adds guesses to sequences that generate, while rows, blocks and cost allow.
    fn schedule_drafts(
        &mut self,
        budget: &mut Budget,
        rows_max: usize,
        (output, decodes): (&mut SchedulerOutput, usize),
    ) {
        let rows: usize = output.sequences.iter().map(|sequence| sequence.rows).sum();
        let mut left = rows_max.saturating_sub(rows).min(budget.rows);
        for scheduled in &mut output.sequences[..decodes] {
            let sequence = &self.sequences[&scheduled.id];
            let end = scheduled.end();
            let held = sequence.blocks.len() + self.pool.free_blocks();
            let in_blocks = (held * self.config.block_tokens).saturating_sub(end);
            let drafts = sequence.drafts.len().min(left).min(in_blocks);
            let drafts = budget.fits(end, drafts);
            if drafts == 0 {
                continue;
            }
            let reserved = self.reserve(scheduled.id, end + drafts);
            debug_assert!(reserved, "counted before");
            budget.take(end, drafts);
            left -= drafts;
            (scheduled.rows, scheduled.drafts) = (1 + drafts, drafts);
        }
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

    /// The least urgent gives its blocks back and waits again, at its old place.
    fn preempt_last(&mut self, output: &mut SchedulerOutput) -> SeqId {
        let (_, _, id) = self.running.pop().expect("somebody runs");
        let sequence = self.sequences.get_mut(&id).expect("it was running");
        sequence.release(&mut self.pool, &mut self.computing);
        self.queue.wait(&sequence.party, sequence.order, id);
        self.preemptions += 1;
        output.preempted.push(id);
        id
    }

    fn plan(&mut self, id: SeqId, rows: usize, output: &mut SchedulerOutput) {
        let sequence = self.sequences.get_mut(&id).expect("it is being planned");
        let (start, end) = (sequence.computed, sequence.computed + rows);
        sequence.in_step = rows;
        // Prompts are counted at once, so that turns within a step are fair too.
        let service = sequence.serve_to(end);
        self.queue.serve(&sequence.party, service);
        let samples = end == sequence.tokens.len();
        output.sequences.push(ScheduledSequence { id, start, rows, drafts: 0, samples });
    }
}
