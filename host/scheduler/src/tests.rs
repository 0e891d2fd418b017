//! Limits and promises, one by one: what is refused, what is shared, who runs first and who gives
//! way. Long seeded traffic is the simulation's.

use std::collections::HashMap;

use request::TokenId;

use crate::simulation::SMALL;
use crate::{
    AddError, NewSequence, Party, Scheduler, SchedulerConfig, SchedulerOutput, SeqId, StepCost,
    StepLimits,
};

fn new(id: SeqId, prompt: usize, max_tokens: usize) -> NewSequence {
    NewSequence {
        id,
        prompt: vec![1; prompt],
        max_tokens,
        cache_key: [0; 32],
        all_rows: false,
        party: Party::default(),
        deadline: None,
    }
}

/// A prompt that nobody shares.
fn own(id: SeqId, prompt: usize, max_tokens: usize) -> NewSequence {
    let mut new = new(id, prompt, max_tokens);
    new.prompt = (0..prompt).map(|at| id as u32 * 1000 + at as u32).collect();
    new
}

fn of(new: NewSequence, priority: i64, tenant: u8, adapter: u8) -> NewSequence {
    let party = Party { priority, tenant: [tenant; 32], adapter: [adapter; 32] };
    NewSequence { party, ..new }
}

fn ids(output: &SchedulerOutput) -> Vec<SeqId> {
    output.sequences.iter().map(|part| part.id).collect()
}

/// Plans a step and gives each sequence that samples the token 7.
fn step(scheduler: &mut Scheduler, limits: &StepLimits) -> SchedulerOutput {
    let output = scheduler.schedule(limits);
    let samples = output.sequences.iter().filter(|part| part.samples);
    let sampled: Vec<_> = samples.map(|part| (part.id, 7)).collect();
    scheduler.update(&output, &sampled);
    output
}

#[test]
fn limits_at_below_and_above() {
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
        let cache_key = [key; 32];
        scheduler.add(NewSequence { prompt, cache_key, ..new(id, 1, 1) }).expect("fits");
        let output = scheduler.schedule(&StepLimits::default());
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

#[test]
fn what_one_computes_the_others_wait_for_instead_of_computing_it_too() {
    let config = SchedulerConfig { step_tokens_max: 8, kv_blocks: 40, ..SMALL };
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    for id in 0..4 {
        scheduler.add(new(id, 18, 5)).expect("fits");
    }
    // A fifth has nothing in common with them and need not wait.
    scheduler.add(own(4, 3, 5)).expect("fits");
    let limits = StepLimits::default();
    let mut rows: HashMap<SeqId, usize> = HashMap::new();
    for _ in 0..5 {
        for part in step(&mut scheduler, &limits).sequences {
            *rows.entry(part.id).or_default() += part.rows;
        }
    }
    // Of 18 tokens 16 lie in full blocks: those behind the first run two rows and what they generate.
    assert!(rows[&0] >= 18, "{rows:?}");
    for id in 1..4 {
        assert!(rows.get(&id).is_none_or(|rows| *rows < 2 + 4), "{rows:?}");
    }
    assert_eq!(scheduler.stats().prefix_hits, 3 * 16);
    // Who would have to wait for one that has gone, does not.
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    scheduler.add(new(0, 18, 5)).expect("fits");
    scheduler.add(new(1, 18, 5)).expect("fits");
    assert_eq!(ids(&step(&mut scheduler, &limits)), [0]);
    scheduler.remove(0);
    assert_eq!(ids(&step(&mut scheduler, &limits)), [1]);
}

#[test]
fn an_urgent_arrival_takes_the_place_and_the_blocks_of_the_least_urgent() {
    let mut scheduler = Scheduler::new(SMALL).expect("valid limits");
    let limits = StepLimits::default();
    for id in 0..4 {
        scheduler.add(of(own(id, 1, 20), 5, 0, 0)).expect("fits");
    }
    assert_eq!(ids(&step(&mut scheduler, &limits)), [0, 1, 2, 3]);
    // The same class waits for a place; a more urgent one does not.
    scheduler.add(of(own(4, 1, 20), 5, 0, 0)).expect("fits");
    assert_eq!(ids(&step(&mut scheduler, &limits)), [0, 1, 2, 3]);
    scheduler.add(of(own(5, 1, 20), -3, 0, 0)).expect("fits");
    let output = step(&mut scheduler, &limits);
    assert_eq!((output.preempted.as_slice(), ids(&output)), (&[3][..], vec![0, 1, 2, 5]));
    // Blocks: 12 in all, and this one needs 9 of them.
    scheduler.add(of(own(6, 36, 4), -4, 0, 0)).expect("fits");
    let output = step(&mut scheduler, &limits);
    assert_eq!(output.preempted, [2, 1, 0]);
    assert!(ids(&output).contains(&6) && ids(&output).contains(&5), "{output:?}");
}

#[test]
fn past_its_deadline_a_sequence_is_given_up_unless_it_has_run() {
    let config = SchedulerConfig { sequences_max: 1, ..SMALL };
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    for (id, deadline) in [(0, Some(5)), (1, Some(6)), (2, Some(7)), (3, None)] {
        scheduler.add(NewSequence { deadline, ..own(id, 2, 20) }).expect("fits");
    }
    let mut at = |now| step(&mut scheduler, &StepLimits { now, ..StepLimits::default() });
    assert_eq!(at(5).started, [(0, 0)]);
    assert!(at(6).expired.is_empty());
    assert_eq!(at(7).expired, [1]);
    let late = at(100);
    assert_eq!((late.expired.as_slice(), ids(&late)), (&[2][..], vec![0]), "it runs already");
    assert_eq!(scheduler.stats().waiting, 1);
}

#[test]
fn a_step_costs_what_it_may_and_everybody_moves() {
    let config = SchedulerConfig { step_tokens_max: 100, kv_blocks: 60, ..SMALL };
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    let cost = StepCost { fixed: 100, per_row: 10, per_position: 1 };
    let rows = |scheduler: &mut Scheduler, limit| {
        let limits = StepLimits { cost: Some((cost, limit)), ..StepLimits::default() };
        let output = step(scheduler, &limits);
        output.sequences.iter().map(|part| part.rows).collect::<Vec<_>>()
    };
    scheduler.add(own(0, 10, 20)).expect("fits");
    // Nobody generates, so nobody waits for the end of a long step.
    assert_eq!(rows(&mut scheduler, 1), [10]);
    scheduler.add(own(1, 30, 5)).expect("fits");
    // The generating row costs 20 at position 10; 7 rows of the prompt cost 70 + 21, 8 cost 80 + 28.
    assert_eq!(rows(&mut scheduler, 100 + 20 + 107), [1, 7]);
    // One position on, 21; rows 7 to 13: 7 rows cost 70 + 49 + 21.
    assert_eq!(rows(&mut scheduler, 100 + 21 + 140), [1, 7]);
    // However little it may cost, a block of the prompt runs.
    assert_eq!(rows(&mut scheduler, 1), [1, 4]);
    assert_eq!(rows(&mut scheduler, u64::MAX), [1, 12]);
}

#[test]
fn guesses_fill_what_is_left_and_what_was_wrong_is_forgotten() {
    let config = SchedulerConfig { step_tokens_max: 6, kv_blocks: 8, ..SMALL };
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    for id in 0..2 {
        scheduler.add(own(id, 3, 6)).expect("fits");
    }
    let limits = StepLimits { draft_rows_max: 5, ..StepLimits::default() };
    step(&mut scheduler, &limits);
    let mut rooms = Vec::new();
    scheduler.propose(|_, tokens, room, drafts| {
        rooms.push((tokens.len(), room));
        drafts.extend([7, 7, 8, 9, 9, 9]);
    });
    // Nine tokens in all at most, four there: five more, of which the last can't be a guess.
    assert_eq!(rooms, [(4, 4), (4, 4)]);
    let output = scheduler.schedule(&limits);
    let parts: Vec<_> = output.sequences.iter().map(|part| (part.rows, part.drafts)).collect();
    assert_eq!(parts, [(4, 3), (1, 0)], "five rows at most");
    assert_eq!(scheduler.rows(&output.sequences[0]), (&[7][..], &[7, 7, 8][..]));
    // Two guesses were right, the third was not.
    let sampled = [(0, 7), (0, 7), (0, 6), (1, 7)];
    scheduler.update(&output, &sampled);
    let output = scheduler.schedule(&StepLimits::default());
    let part = output.sequences[0];
    assert_eq!((part.start, part.rows, part.samples), (6, 1, true));
    assert_eq!(scheduler.rows(&part), (&[6][..], &[][..]));
    assert_eq!(scheduler.block_table(0).len(), 2);
}

/// What tenants were served if there are several, and what adapters were if there is one.
fn shares(parties: &[(u8, u8)], served: &[u64]) -> Vec<u64> {
    let one_tenant = parties.iter().all(|(tenant, _)| *tenant == parties[0].0);
    let mut shares: HashMap<u8, u64> = HashMap::new();
    for ((tenant, adapter), served) in parties.iter().zip(served) {
        *shares.entry(if one_tenant { *adapter } else { *tenant }).or_default() += served;
    }
    shares.into_values().collect()
}

/// Serves tenants that always have somebody waiting; returns what each was served. In every step no
/// two of a level may be further apart than all places full of the longest requests.
fn backlogged(parties: &[(u8, u8)], config: SchedulerConfig, steps: usize) -> Vec<u64> {
    const PROMPT: usize = 12;
    const ANSWER: usize = 8;
    let mut scheduler = Scheduler::new(config).expect("valid limits");
    let mut owners: HashMap<SeqId, (usize, usize)> = HashMap::new();
    let (mut served, mut next) = (vec![0; parties.len()], 0);
    for _ in 0..steps {
        for (index, (tenant, adapter)) in parties.iter().enumerate() {
            // The first asks ten times as much at a time as the others.
            let wanted = if index == 0 { 50 } else { 5 };
            let waiting = owners.iter().filter(|(id, (owner, generated))| {
                *owner == index && *generated == 0 && !scheduler.is_running(**id)
            });
            for _ in waiting.count()..wanted {
                let length = PROMPT - (next % 3) as usize * 4 + index % 2;
                let new = of(own(next, length.min(PROMPT), ANSWER), 0, *tenant, *adapter);
                scheduler.add(new).expect("there is room");
                owners.insert(next, (index, 0));
                next += 1;
            }
        }
        let output = scheduler.schedule(&StepLimits::default());
        let sampled: Vec<_> = output.sequences.iter().filter(|part| part.samples).collect();
        let sampled: Vec<_> = sampled.iter().map(|part| (part.id, 7)).collect();
        for part in &output.sequences {
            let (owner, generated) = owners[&part.id];
            served[owner] += if generated == 0 { part.rows as u64 } else { 2 };
        }
        scheduler.update(&output, &sampled);
        for (id, _) in sampled {
            let (_, generated) = owners.get_mut(&id).expect("it runs");
            *generated += 1;
            if *generated == ANSWER {
                scheduler.remove(id);
                owners.remove(&id);
            }
        }
        let bound = (config.sequences_max * (PROMPT + 2 * ANSWER)) as u64;
        let shares = shares(parties, &served);
        let (least, most) = (shares.iter().min(), shares.iter().max());
        let gap = most.expect("some") - least.expect("some");
        assert!(gap <= bound, "{served:?} differ by more than {bound}");
    }
    shares(parties, &served)
}

#[test]
fn who_asks_most_gets_no_more_than_the_others() {
    let config = SchedulerConfig { kv_blocks: 200, queue_max: 1000, ..SMALL };
    let cases: [&[(u8, u8)]; 4] = [
        // Three tenants on one adapter, three adapters of one tenant, and more of both than places.
        &[(1, 1), (2, 1), (3, 1)],
        &[(1, 1), (1, 2), (1, 3)],
        &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7)],
        // Many adapters give a tenant no more than one does.
        &[(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)],
    ];
    for parties in cases {
        let served = backlogged(parties, config, 3000);
        let mean = served.iter().sum::<u64>() / served.len() as u64;
        assert!(mean > 1000, "{served:?}");
        assert!(served.iter().all(|one| one.abs_diff(mean) < mean / 10 + 112), "{served:?}");
    }
}
