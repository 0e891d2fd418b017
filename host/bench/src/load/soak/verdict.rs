//! What came of a soak, and whether it is clean. Pure but for its counters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::super::summary::{Failures, median};
use super::gauges::{Gauges, RESIDENT};
use super::visitor::Ended;

/// Fewest samples that say something about memory.
const SAMPLES_MIN: usize = 10;

/// One look at the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// Bytes of the server in memory.
    pub resident_bytes: f64,
    /// Visits that have ended.
    pub visits: u64,
    /// Sequences that run.
    pub running: f64,
    /// Sequences that wait.
    pub waiting: f64,
    /// KV blocks that are held.
    pub kv_blocks_used: f64,
    /// Holds on adapters.
    pub leases: f64,
    /// Open files.
    pub files: f64,
}

impl Sample {
    pub(super) fn of(gauges: &Gauges, at: Duration, visits: u64) -> Self {
        let get = |name: &str| gauges.get(name).unwrap_or(f64::NAN);
        Self {
            at_s: at.as_secs_f64(),
            resident_bytes: get(RESIDENT),
            visits,
            running: get("vllm:num_requests_running"),
            waiting: get("vllm:num_requests_waiting"),
            kv_blocks_used: get("mortise_engine_kv_blocks{state=\"used\"}"),
            leases: get("mortise_adapter_leases"),
            files: get("process_open_fds"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} s: {} visits, {:.1} MB, {} running, {} waiting, {} KV blocks, {} leases, {} files",
            self.at_s,
            self.visits,
            self.resident_bytes / 1e6,
            self.running,
            self.waiting,
            self.kv_blocks_used,
            self.leases,
            self.files
        )
    }
}

/// The server's memory over a soak, each figure the median of a tenth of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Bytes in the first tenth.
    pub start_bytes: f64,
    /// Bytes in the middle, when caches are as full as they get.
    pub middle_bytes: f64,
    /// Bytes in the last tenth.
    pub end_bytes: f64,
    /// From the middle to the end, for each visit.
    pub bytes_per_visit: f64,
    /// From the middle to the end, as a share of the middle.
    pub growth: f64,
    /// The most that this may be.
    pub growth_max: f64,
}

impl Memory {
    /// Of the samples that were taken while clients came; `None` of too few.
    pub(super) fn of(samples: &[Sample], driven: Duration, growth_max: f64) -> Option<Self> {
        let share = |from: f64, to: f64| {
            let within = move |sample: &&Sample| {
                let at = sample.at_s / driven.as_secs_f64();
                from <= at && at <= to
            };
            let of = |pick: fn(&Sample) -> f64| {
                median(samples.iter().filter(within).map(pick).collect())
            };
            (of(|sample| sample.resident_bytes), of(|sample| sample.visits as f64))
        };
        if samples.len() < SAMPLES_MIN {
            return None;
        }
        let (start, middle, end) = (share(0.0, 0.1), share(0.45, 0.55), share(0.9, 1.0));
        let grown = end.0 - middle.0;
        Some(Self {
            start_bytes: start.0,
            middle_bytes: middle.0,
            end_bytes: end.0,
            bytes_per_visit: grown / (end.1 - middle.1).max(1.0),
            growth: grown / middle.0,
            growth_max,
        })
    }

    fn is_flat(&self) -> bool {
        self.growth <= self.growth_max
    }
}

/// Counts of ends.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

/// How visits and changes ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Visits that had their answer.
    pub answered: u64,
    /// Visits that the client ended early.
    pub left: u64,
    /// Visits that the server had no room for, and said so.
    pub busy: u64,
    /// Visits that were refused as they had to be.
    pub refused: u64,
    /// Changes that were made.
    pub changes: u64,
    /// Changes that were refused as they had to be.
    pub changes_refused: u64,
    /// What nobody asked for, by cause.
    pub foreign: BTreeMap<String, Failures>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn visits(&self) -> u64 {
        let counts = self.lock();
        counts.answered + counts.left + counts.busy + counts.refused
    }

    pub(super) fn count(&self, ended: &Ended) {
        let mut counts = self.lock();
        match ended {
            Ended::Answered => counts.answered += 1,
            Ended::Left => counts.left += 1,
            Ended::Busy => counts.busy += 1,
            Ended::Refused => counts.refused += 1,
            Ended::Foreign(_) => counts.foreign(ended),
        }
    }

    pub(super) fn changed(&self, ended: &Ended) {
        let mut counts = self.lock();
        match ended {
            Ended::Answered => counts.changes += 1,
            Ended::Left | Ended::Busy | Ended::Refused => counts.changes_refused += 1,
            Ended::Foreign(_) => counts.foreign(ended),
        }
    }
}

impl Counts {
    fn foreign(&mut self, ended: &Ended) {
        let Ended::Foreign(failure) = ended else { return };
        let entry = self.foreign.entry(failure.cause.clone()).or_default();
        entry.count += 1;
        if entry.count == 1 {
            entry.example.clone_from(&failure.message);
        }
    }
}

/// What came of a soak.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// Seconds in which clients came.
    pub driven_s: f64,
    /// Seconds from then until the server held nothing, or the whole wait.
    pub quiet_s: f64,
    /// How visits and changes ended.
    pub counts: Counts,
    /// What the server holds that nobody can want any more.
    pub held: Vec<String>,
    /// The server's memory, if there are enough samples.
    pub memory: Option<Memory>,
    /// Whether nothing is wrong.
    pub clean: bool,
    /// Every look at the server; the last is of the quiet.
    pub samples: Vec<Sample>,
}

impl SoakReport {
    pub(super) fn new(
        driven: Duration,
        quiet: Duration,
        tally: Tally,
        (held, memory): (Vec<String>, Option<Memory>),
        samples: Vec<Sample>,
    ) -> Self {
        let counts = tally.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let flat = memory.is_none_or(|memory| memory.is_flat());
        let clean = counts.foreign.is_empty() && held.is_empty() && flat && counts.answered > 0;
        let (driven_s, quiet_s) = (driven.as_secs_f64(), quiet.as_secs_f64());
        Self { driven_s, quiet_s, counts, held, memory, clean, samples }
    }

    /// All of it, for programs.
    #[must_use]
    pub fn json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("maps have names for keys");
        json + "\n"
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{:.0} s: {} answered, {} left by the client, {} told to come later, {} refused as expected; \
             {} changes of adapters, {} refused as expected",
            self.driven_s,
            counts.answered,
            counts.left,
            counts.busy,
            counts.refused,
            counts.changes,
            counts.changes_refused
        )?;
        match &self.memory {
            Some(memory) => writeln!(
                f,
                "memory: {:.1} MB at the start, {:.1} in the middle, {:.1} at the end: {:+.2} %, at most \
                 {:.2} allowed; {:+.0} bytes a visit",
                memory.start_bytes / 1e6,
                memory.middle_bytes / 1e6,
                memory.end_bytes / 1e6,
                memory.growth * 1e2,
                memory.growth_max * 1e2,
                memory.bytes_per_visit
            )?,
            None => writeln!(f, "memory: too few samples")?,
        }
        if self.held.is_empty() {
            writeln!(f, "quiet after {:.1} s: nothing is held", self.quiet_s)?;
        }
        for held in &self.held {
            writeln!(f, "after {:.1} s: {held}", self.quiet_s)?;
        }
        for (cause, failures) in &counts.foreign {
            writeln!(f, "{} x {cause}, such as: {}", failures.count, failures.example)?;
        }
        writeln!(f, "{}", if self.clean { "clean" } else { "NOT CLEAN" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Failure;
    use super::*;

    fn samples(bytes: impl Fn(usize) -> f64) -> Vec<Sample> {
        let sample = |index: usize| {
            let gauges = Gauges::parse(&format!("{RESIDENT} {}", bytes(index)));
            Sample::of(&gauges, Duration::from_secs(index as u64), 10 * index as u64)
        };
        (0..=100).map(sample).collect()
    }

    #[test]
    fn memory_is_flat_or_it_grows() {
        let check = |bytes: fn(usize) -> f64, growth_max, expect: (f64, bool)| {
            let found = Memory::of(&samples(bytes), Duration::from_secs(100), growth_max);
            let found = found.expect("enough samples");
            assert_eq!((found.bytes_per_visit, found.is_flat()), expect, "{found:?}");
        };
        check(|_| 5e8, 0.0, (0.0, true));
        // Caches fill up in the first half.
        check(|index| 1e6 * index.min(45) as f64, 0.0, (0.0, true));
        check(|index| 1e6 + 450.0 * index as f64, 0.02, (45.0, true));
        check(|index| 1e6 + 450.0 * index as f64, 0.0198, (45.0, false));
        check(|index| 1e6 - 450.0 * index as f64, 0.0, (-45.0, true));
        assert_eq!(Memory::of(&samples(|_| 1.0)[..9], Duration::from_secs(9), 0.1), None);
    }

    #[test]
    fn a_soak_is_clean_or_says_why() {
        let report = |ends: &[Ended], held: &[&str]| {
            let tally = Tally::default();
            ends.iter().for_each(|ended| tally.count(ended));
            tally.changed(&Ended::Refused);
            assert_eq!(tally.visits(), 3);
            let held = held.iter().map(|held| (*held).to_owned()).collect();
            SoakReport::new(Duration::from_secs(3), Duration::ZERO, tally, (held, None), Vec::new())
        };
        let fine = [Ended::Answered, Ended::Left, Ended::Busy];
        let clean = report(&fine, &[]);
        assert!(clean.clean && clean.to_string().ends_with("nothing is held\nclean\n"), "{clean}");
        let leaked = report(&fine, &["2 sequences run"]);
        assert!(!leaked.clean && leaked.to_string().contains("after 0.0 s: 2 sequences run\n"));
        let failure = |message: &str| Ended::Foreign(Failure::new("status 500", message));
        let ends = [&fine[..], &[failure("one"), failure("two")]].concat();
        let failed = report(&ends, &[]);
        assert!(!failed.clean && failed.to_string().contains("2 x status 500, such as: one\n"));
        let nothing = report(&[Ended::Left, Ended::Refused, Ended::Busy], &[]);
        assert!(!nothing.clean, "nobody was answered");
        assert!(failed.json().contains("\"clean\": false"));
    }
}
