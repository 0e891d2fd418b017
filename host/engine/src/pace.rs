//! How long steps take, learned from those that ran, and how long the next one may take. Time is
//! handed in; nothing here reads a clock.

use std::time::Duration;

use scheduler::StepCost;

/// Weight that past steps keep with every new one.
const MEMORY: f64 = 0.995;
/// Steps before what was learned is used.
const STEPS_MIN: u32 = 8;
/// Rows and positions are counted in these, so that all three terms are of one size.
const SCALE: [f64; 3] = [1.0, 1.0 / 64.0, 1.0 / 65536.0];
/// Holds what no step has told apart near zero.
const RIDGE: f64 = 1e-6;
/// Sweeps of the solver for each step; what it found is where it begins the next time.
const SWEEPS: usize = 8;
/// Costs are counted in picoseconds: a position costs less than a nanosecond.
const UNITS_PER_SECOND: f64 = 1e12;

/// Steps as a sum of a fixed part, a part per row and a part per position that a row attends to:
/// least squares with forgetting, no part below zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// Products of the terms with each other and with the seconds.
    products: [[f64; 3]; 3],
    seconds: [f64; 3],
    /// Seconds per scaled unit of each term.
    parts: [f64; 3],
    steps: u32,
}

impl Pace {
    /// Learns from a step. `positions` are those before each of its rows, summed up.
    pub(crate) fn learn(&mut self, rows: usize, positions: u64, took: Duration) {
        let terms = terms(rows, positions);
        let mut took = took.as_secs_f64();
        if self.steps >= STEPS_MIN {
            // A page fault or a busy machine says nothing about the next step.
            took = took.min(4.0 * self.predict(terms) + 1e-4);
        }
        for (row, term) in terms.iter().enumerate() {
            for (column, other) in terms.iter().enumerate() {
                let product = &mut self.products[row][column];
                *product = *product * MEMORY + term * other;
            }
            self.seconds[row] = self.seconds[row] * MEMORY + term * took;
        }
        self.steps = self.steps.saturating_add(1);
        for _ in 0..SWEEPS {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        for row in 0..3 {
            let others: f64 = (0..3)
                .filter(|column| *column != row)
                .map(|column| self.products[row][column] * self.parts[column])
                .sum();
            let part = (self.seconds[row] - others) / (self.products[row][row] + RIDGE);
            self.parts[row] = part.max(0.0);
        }
    }

    fn predict(&self, terms: [f64; 3]) -> f64 {
        terms.iter().zip(self.parts).map(|(term, part)| term * part).sum()
    }

    /// What steps cost, in picoseconds; `None` until enough have run.
    pub(crate) fn cost(&self) -> Option<StepCost> {
        let of = |part: usize| (self.parts[part] * SCALE[part] * UNITS_PER_SECOND) as u64;
        let cost = StepCost { fixed: of(0), per_row: of(1), per_position: of(2) };
        (self.steps >= STEPS_MIN).then_some(cost)
    }

    /// Share of the time of a step of `rows` rows that grows with their number; a guess of it until
    /// enough have run.
    pub(crate) fn row_share(&self, rows: usize) -> f32 {
        const UNKNOWN: f32 = 0.3;
        let [fixed, per_row, _] = self.parts;
        let growing = per_row * SCALE[1] * rows as f64;
        match self.steps >= STEPS_MIN && fixed + growing > 0.0 {
            true => (growing / (fixed + growing)) as f32,
            false => UNKNOWN,
        }
    }
}

fn terms(rows: usize, positions: u64) -> [f64; 3] {
    [1.0, rows as f64 * SCALE[1], positions as f64 * SCALE[2]]
}

/// Wanted times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets {
    /// From a token to the next.
    pub(crate) inter_token: Duration,
    /// From arrival to the first token.
    pub(crate) first_token: Option<Duration>,
}

impl Targets {
    /// How long a step may take, in picoseconds, if whoever has waited longest for a first token has
    /// done so for `oldest`.
    pub(crate) fn step(&self, oldest: Duration) -> u64 {
        let late = match self.first_token {
            Some(target) => oldest.as_secs_f64() / target.as_secs_f64(),
            None => 0.0,
        };
        let stretch = (2.0 * late).clamp(1.0, 2.0);
        (self.inter_token.as_secs_f64() * stretch * UNITS_PER_SECOND) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use scheduler::{NewSequence, Party, Scheduler, SchedulerConfig, StepLimits};

    use super::*;

    /// Steps of a machine that takes so many microseconds per step, row and thousand positions.
    fn learned(machine: [f64; 3], shapes: &[(usize, u64)], steps: usize) -> Pace {
        let mut pace = Pace::default();
        for step in 0..steps {
            let (rows, positions) = shapes[step % shapes.len()];
            let micros =
                machine[0] + machine[1] * rows as f64 + machine[2] * positions as f64 / 1000.0;
            pace.learn(rows, positions, Duration::from_secs_f64(micros * 1e-6));
        }
        pace
    }

    #[test]
    fn parts_are_found_again() {
        let shapes = [(1, 100), (8, 2000), (64, 9000), (300, 40_000), (33, 60_000), (12, 500)];
        for machine in [[4000.0, 300.0, 20.0], [100.0, 900.0, 0.0], [9000.0, 0.0, 90.0]] {
            let cost = learned(machine, &shapes, 3000).cost().unwrap();
            let close = |found: u64, micros: f64, scale: f64| {
                let (found, expect) = (found as f64, micros * scale);
                assert!((found - expect).abs() < 0.05 * expect + 2e-3 * scale * 4000.0, "{cost:?}");
            };
            close(cost.fixed, machine[0], 1e6);
            close(cost.per_row, machine[1], 1e6);
            close(cost.per_position, machine[2], 1e3);
        }
    }

    #[test]
    fn what_was_never_told_apart_is_still_right_in_sum() {
        // Every step is alike: whatever the parts, their sum is what such a step takes.
        let pace = learned([5000.0, 100.0, 10.0], &[(4, 4000)], 500);
        let cost = pace.cost().unwrap();
        let total = cost.fixed + 4 * cost.per_row + 4000 * cost.per_position;
        assert!(total.abs_diff(5_440_000_000) < 60_000_000, "{cost:?}");
    }

    #[test]
    fn one_slow_step_is_no_rule_and_nothing_is_said_before_a_few() {
        let shapes = [(1, 100), (20, 2000), (64, 9000)];
        let mut pace = learned([1000.0, 50.0, 1.0], &shapes, 7);
        assert_eq!(pace.cost(), None);
        let before = learned([1000.0, 50.0, 1.0], &shapes, 600).cost().unwrap();
        pace = learned([1000.0, 50.0, 1.0], &shapes, 600);
        pace.learn(20, 2000, Duration::from_secs(60));
        let after = pace.cost().unwrap();
        assert!(after.fixed + 20 * after.per_row < 2 * (before.fixed + 20 * before.per_row));
        assert!(pace.row_share(1) < 0.2 && pace.row_share(200) > 0.8);
    }

    #[test]
    fn steps_are_stretched_for_those_who_wait_too_long() {
        let targets = Targets {
            inter_token: Duration::from_millis(50),
            first_token: Some(Duration::from_millis(1000)),
        };
        let check = |waited, expect: u64| {
            assert_eq!(targets.step(Duration::from_millis(waited)), expect * 1_000_000_000);
        };
        check(0, 50);
        check(500, 50);
        check(750, 75);
        check(1000, 100);
        check(9000, 100);
        let never = Targets { first_token: None, ..targets };
        assert_eq!(never.step(Duration::from_secs(99)), 50_000_000_000);
    }

    /// A machine in simulated time, kept busy with long prompts; durations of the steps in which
    /// somebody generates, in milliseconds.
    fn paced(target_ms: Option<u64>, steps: u64) -> Vec<f64> {
        let config = SchedulerConfig {
            block_tokens: 16,
            kv_blocks: 4096,
            step_tokens_max: 512,
            sequences_max: 16,
            queue_max: 64,
            context_tokens_max: 4096,
            prefix_cache: true,
        };
        let mut scheduler = Scheduler::new(config).unwrap();
        let (mut pace, mut next, mut durations) = (Pace::default(), 0, Vec::new());
        let targets = target_ms.map(|target| Targets {
            inter_token: Duration::from_millis(target),
            first_token: None,
        });
        let mut left: HashMap<u64, usize> = HashMap::new();
        for _ in 0..steps {
            while left.len() < 20 {
                scheduler
                    .add(NewSequence {
                        id: next,
                        prompt: (0..200 + next as u32 % 7 * 200)
                            .map(|at| at ^ next as u32)
                            .collect(),
                        max_tokens: 64,
                        cache_key: [next as u8; 32],
                        all_rows: false,
                        party: Party::default(),
                        deadline: None,
                    })
                    .unwrap();
                left.insert(next, 64);
                next += 1;
            }
            let cost = targets.and_then(|t| Some((pace.cost()?, t.step(Duration::ZERO))));
            let output = scheduler.schedule(&StepLimits { cost, ..StepLimits::default() });
            let rows: usize = output.sequences.iter().map(|part| part.rows).sum();
            let positions: usize =
                output.sequences.iter().map(|part| part.rows * (part.start + part.rows / 2)).sum();
            let ms = 2.0 + 0.15 * rows as f64 + 5e-6 * positions as f64;
            pace.learn(rows, positions as u64, Duration::from_secs_f64(ms * 1e-3));
            if output.sequences.iter().any(|part| left[&part.id] < 64) {
                durations.push(ms);
            }
            let samples = output.sequences.iter().filter(|part| part.samples);
            let sampled: Vec<_> = samples.map(|part| (part.id, 7)).collect();
            scheduler.update(&output, &sampled);
            for (id, _) in sampled {
                let more = left.get_mut(&id).unwrap();
                *more -= 1;
                if *more == 0 {
                    left.remove(&id);
                    scheduler.remove(id);
                }
            }
        }
        durations
    }

    #[test]
    fn steps_keep_to_the_target_and_use_it() {
        let longest = |durations: &[f64]| durations.iter().copied().fold(0.0, f64::max);
        assert!(
            longest(&paced(None, 400)) > 70.0,
            "without a target steps are as long as they get"
        );
        for target in [10, 20, 40] {
            let durations = paced(Some(target), 600);
            // What is not known yet is learned first.
            let durations = &durations[30..];
            assert!(longest(durations) < 1.1 * target as f64, "{target}: {}", longest(durations));
            let full = durations.iter().filter(|ms| **ms > 0.8 * target as f64).count();
            assert!(full * 3 > durations.len(), "{target}: {full} of {}", durations.len());
        }
    }
}
