//! From what clients saw to figures. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::client::{End, Seen};
use super::drive::Recorded;

/// A distribution, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many values; without any, the others are 0.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The smallest value that half of them do not exceed.
    pub p50: f64,
    /// As `p50`, for nine tenths.
    pub p90: f64,
    /// As `p50`, for 99 of a hundred.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of values in milliseconds, in any order.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let Some(max) = values.last().copied() else { return Self::default() };
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1);
            values[rank - 1]
        };
        let count = values.len();
        Self {
            count: count as u64,
            mean: values.iter().sum::<f64>() / count as f64,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
        }
    }

    fn median(all: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(all.iter().map(pick).collect());
        Self {
            count: median_count(all.iter().map(|one| one.count)),
            mean: of(|one| one.mean),
            p50: of(|one| one.p50),
            p90: of(|one| one.p90),
            p99: of(|one| one.p99),
            max: of(|one| one.max),
        }
    }
}

/// Failures of one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

/// The figures of one measurement, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How long was measured, in seconds.
    pub wall_s: f64,
    /// Requests that ended as they should.
    pub completed: u64,
    /// Requests that were running when the time was over.
    pub cut: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Why, by cause.
    pub failures: BTreeMap<String, Failures>,
    /// Tokens of prompts of completed requests.
    pub prompt_tokens: u64,
    /// Tokens of answers, whole or cut.
    pub output_tokens: u64,
    /// Adapters that were asked for.
    pub adapters: u64,
    /// Completed requests per second.
    pub requests_per_s: f64,
    /// Tokens of answers per second.
    pub output_tokens_per_s: f64,
    /// From when a request was due to its first text.
    pub ttft_ms: Percentiles,
    /// The same, of the requests that were the first to ask for their adapters.
    pub ttft_first_use_ms: Percentiles,
    /// The same, of the requests whose adapter was in memory, where the server says so.
    pub ttft_warm_ms: Percentiles,
    /// The same, of the requests whose adapter had to be loaded.
    pub ttft_cold_ms: Percentiles,
    /// What loads took, from when they were asked for, as the server says.
    pub adapter_wait_ms: Percentiles,
    /// Between one text of an answer and the next.
    pub itl_ms: Percentiles,
    /// The same, of answers whose adapter was in memory, where the server says so.
    pub itl_warm_ms: Percentiles,
    /// The same, of answers whose adapter had to be loaded.
    pub itl_cold_ms: Percentiles,
    /// Mean time per token behind the first, of each completed answer.
    pub tpot_ms: Percentiles,
    /// From when a request was due to its last text.
    pub latency_ms: Percentiles,
}

impl Summary {
    /// The figures of one measurement.
    pub(super) fn of(recorded: &Recorded) -> Self {
        let wall_s = recorded.wall.as_secs_f64();
        let mut summary = Self { wall_s, ..Self::default() };
        let mut samples = Samples::default();
        for outcome in &recorded.outcomes {
            let seen = &outcome.seen;
            let is_first = outcome.adapter.is_some_and(|adapter| samples.adapters.insert(adapter));
            match &outcome.end {
                End::Complete => {
                    summary.completed += 1;
                    summary.prompt_tokens += seen.prompt_tokens;
                    samples.latency.push(seen.last.as_secs_f64() * 1e3);
                    if let Some(first) = seen.first
                        && seen.output_tokens > 1
                    {
                        let rest = (seen.last - first).as_secs_f64() * 1e3;
                        samples.tpot.push(rest / (seen.output_tokens - 1) as f64);
                    }
                }
                End::Cut => summary.cut += 1,
                End::Failed(failure) => {
                    summary.failed += 1;
                    let entry = summary.failures.entry(failure.cause.clone()).or_default();
                    entry.count += 1;
                    if entry.count == 1 {
                        entry.example.clone_from(&failure.message);
                    }
                    continue;
                }
            }
            summary.output_tokens += seen.output_tokens;
            samples.take(seen, is_first);
        }
        summary.adapters = samples.adapters.len() as u64;
        if wall_s > 0.0 {
            summary.requests_per_s = summary.completed as f64 / wall_s;
            summary.output_tokens_per_s = summary.output_tokens as f64 / wall_s;
        }
        samples.fill(&mut summary);
        summary
    }

    /// The median of every figure; failures are added up.
    pub(super) fn median(all: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(all.iter().map(pick).collect());
        let count = |pick: fn(&Self) -> u64| median_count(all.iter().map(pick));
        let times = |pick: fn(&Self) -> Percentiles| {
            Percentiles::median(&all.iter().map(pick).collect::<Vec<_>>())
        };
        let mut failures: BTreeMap<String, Failures> = BTreeMap::new();
        for (cause, one) in all.iter().flat_map(|summary| &summary.failures) {
            let entry = failures
                .entry(cause.clone())
                .or_insert_with(|| Failures { count: 0, example: one.example.clone() });
            entry.count += one.count;
        }
        Self {
            wall_s: of(|one| one.wall_s),
            completed: count(|one| one.completed),
            cut: count(|one| one.cut),
            failed: all.iter().map(|one| one.failed).sum(),
            failures,
            prompt_tokens: count(|one| one.prompt_tokens),
            output_tokens: count(|one| one.output_tokens),
            adapters: count(|one| one.adapters),
            requests_per_s: of(|one| one.requests_per_s),
            output_tokens_per_s: of(|one| one.output_tokens_per_s),
            ttft_ms: times(|one| one.ttft_ms),
            ttft_first_use_ms: times(|one| one.ttft_first_use_ms),
            ttft_warm_ms: times(|one| one.ttft_warm_ms),
            ttft_cold_ms: times(|one| one.ttft_cold_ms),
            adapter_wait_ms: times(|one| one.adapter_wait_ms),
            itl_ms: times(|one| one.itl_ms),
            itl_warm_ms: times(|one| one.itl_warm_ms),
            itl_cold_ms: times(|one| one.itl_cold_ms),
            tpot_ms: times(|one| one.tpot_ms),
            latency_ms: times(|one| one.latency_ms),
        }
    }
}

/// Values in milliseconds, and the adapters that were asked for so far.
#[derive(Default)]
struct Samples {
    ttft: Vec<f64>,
    ttft_first_use: Vec<f64>,
    itl: Vec<f64>,
    warm: OfResidence,
    cold: OfResidence,
    adapter_wait: Vec<f64>,
    tpot: Vec<f64>,
    latency: Vec<f64>,
    adapters: BTreeSet<usize>,
}

/// Values of requests whose adapters were in memory, or were not.
#[derive(Default)]
struct OfResidence {
    ttft: Vec<f64>,
    itl: Vec<f64>,
}

impl Samples {
    /// The times of an answer, whole or cut.
    fn take(&mut self, seen: &Seen, is_first: bool) {
        let gaps = || seen.gaps_s.iter().map(|gap| f64::from(*gap) * 1e3);
        self.itl.extend(gaps());
        let of = seen.adapter_wait_ms.map(|wait| match wait > 0.0 {
            true => {
                self.adapter_wait.push(wait);
                &mut self.cold
            }
            false => &mut self.warm,
        });
        let first = seen.first.map(|first| first.as_secs_f64() * 1e3);
        if let Some(of) = of {
            of.itl.extend(gaps());
            of.ttft.extend(first);
        }
        self.ttft.extend(first);
        if is_first {
            self.ttft_first_use.extend(first);
        }
    }

    fn fill(self, summary: &mut Summary) {
        summary.ttft_ms = Percentiles::of(self.ttft);
        summary.ttft_first_use_ms = Percentiles::of(self.ttft_first_use);
        summary.ttft_warm_ms = Percentiles::of(self.warm.ttft);
        summary.ttft_cold_ms = Percentiles::of(self.cold.ttft);
        summary.adapter_wait_ms = Percentiles::of(self.adapter_wait);
        summary.itl_ms = Percentiles::of(self.itl);
        summary.itl_warm_ms = Percentiles::of(self.warm.itl);
        summary.itl_cold_ms = Percentiles::of(self.cold.itl);
        summary.tpot_ms = Percentiles::of(self.tpot);
        summary.latency_ms = Percentiles::of(self.latency);
    }
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn median_count(values: impl Iterator<Item = u64>) -> u64 {
    median(values.map(|value| value as f64).collect()).round() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::client::Failure;
    use super::super::drive::Outcome;
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let check = |values: Vec<f64>, expect: [f64; 6]| {
            let found = Percentiles::of(values);
            let count = found.count as f64;
            let found = [count, found.mean, found.p50, found.p90, found.p99, found.max];
            assert_eq!(found, expect);
        };
        check(vec![], [0.0; 6]);
        check(vec![7.0], [1.0, 7.0, 7.0, 7.0, 7.0, 7.0]);
        check((1..=100).rev().map(f64::from).collect(), [100.0, 50.5, 50.0, 90.0, 99.0, 100.0]);
        check((1..=10).map(f64::from).collect(), [10.0, 5.5, 5.0, 9.0, 10.0, 10.0]);
        check((1..=200).map(f64::from).collect(), [200.0, 100.5, 100.0, 180.0, 198.0, 200.0]);
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let check = |values: &[f64], expect: f64| assert_eq!(median(values.to_vec()), expect);
        check(&[], 0.0);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
    }

    fn cold(outcome: Outcome, adapter_wait_ms: f64) -> Outcome {
        let seen = Seen { adapter_wait_ms: Some(adapter_wait_ms), ..outcome.seen };
        Outcome { seen, ..outcome }
    }

    fn outcome(adapter: Option<usize>, times_ms: &[u64], end: End) -> Outcome {
        let first = times_ms.first().map(|time| Duration::from_millis(*time));
        let last = Duration::from_millis(times_ms.last().copied().unwrap_or_default());
        let gaps_s = times_ms.windows(2).map(|pair| (pair[1] - pair[0]) as f32 / 1e3).collect();
        let output_tokens = times_ms.len() as u64;
        let prompt_tokens = if end == End::Complete { 10 } else { 0 };
        let adapter_wait_ms = adapter.map(|_| 0.0);
        let seen = Seen { first, last, gaps_s, prompt_tokens, output_tokens, adapter_wait_ms };
        Outcome { adapter, seen, end }
    }

    #[test]
    fn every_figure_of_known_requests() {
        let failed = |cause: &str, message: &str| End::Failed(Failure::new(cause, message));
        let recorded = Recorded {
            wall: Duration::from_secs(2),
            outcomes: vec![
                outcome(Some(1), &[100, 110, 130], End::Complete),
                cold(outcome(Some(2), &[200, 216], End::Complete), 90.0),
                outcome(Some(1), &[40], End::Complete),
                cold(outcome(Some(2), &[300, 310], End::Cut), 70.5),
                outcome(Some(3), &[], failed("status 429", "busy")),
                outcome(Some(3), &[5, 6, 7], failed("status 429", "still busy")),
                outcome(None, &[], failed("connection", "refused")),
            ],
        };
        let summary = Summary::of(&recorded);
        assert_eq!((summary.completed, summary.cut, summary.failed), (3, 1, 3));
        assert_eq!((summary.prompt_tokens, summary.output_tokens), (30, 8));
        assert_eq!((summary.requests_per_s, summary.output_tokens_per_s), (1.5, 4.0));
        assert_eq!(summary.adapters, 3);
        assert_eq!((summary.ttft_ms.count, summary.ttft_ms.max), (4, 300.0));
        assert_eq!(summary.ttft_first_use_ms.count, 2);
        assert_eq!(summary.ttft_first_use_ms.mean, 150.0);
        assert_eq!((summary.ttft_warm_ms.count, summary.ttft_warm_ms.max), (2, 100.0));
        assert_eq!((summary.ttft_cold_ms.count, summary.ttft_cold_ms.p50), (2, 200.0));
        assert_eq!((summary.adapter_wait_ms.count, summary.adapter_wait_ms.p50), (2, 70.5));
        assert_eq!((summary.itl_warm_ms.count, summary.itl_warm_ms.max.round()), (2, 20.0));
        assert_eq!((summary.itl_cold_ms.count, summary.itl_cold_ms.max.round()), (2, 16.0));
        assert_eq!((summary.itl_ms.count, summary.itl_ms.p50.round()), (4, 10.0));
        assert_eq!((summary.tpot_ms.p50, summary.tpot_ms.max), (15.0, 16.0));
        assert_eq!((summary.latency_ms.count, summary.latency_ms.max), (3, 216.0));
        let failures = &summary.failures;
        let busy = Failures { count: 2, example: "busy".to_owned() };
        assert_eq!(failures["status 429"], busy);
        assert_eq!(failures["connection"].count, 1);

        let mut slower = summary.clone();
        slower.output_tokens_per_s = 2.0;
        slower.itl_ms.p99 += 8.0;
        let median = Summary::median(&[summary.clone(), slower]);
        assert_eq!(median.output_tokens_per_s, 3.0);
        assert_eq!(median.itl_ms.p99, summary.itl_ms.p99 + 4.0);
        assert_eq!((median.completed, median.failed), (3, 6));
        assert_eq!(median.failures["status 429"].count, 4);
    }
}
