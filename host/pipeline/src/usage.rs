//! What each adapter has used since the process began, as a bill would have it: tokens, time and loads, by
//! tenant. Rows outlive their adapters and their number is bounded; it never forgets what was used, only,
//! beyond the bounds, by whom.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::request::Usage;
use engine::{Progress, Timing};

/// Most adapters with a row of their own.
const ADAPTERS_MAX: usize = 32_768;
/// Most rows of tenants, of all adapters together.
const TENANT_ROWS_MAX: usize = 65_536;
/// Longest name with a row of its own, in bytes. Aliases and tenants are shorter.
const NAME_BYTES_MAX: usize = 256;

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests that the engine took, those that failed or were left later included.
    pub requests: u64,
    /// Of those, requests in which the adapter was part of a blend.
    pub blended_requests: u64,
    /// Tokens of prompts, cached ones included; each prompt once, however many choices it had.
    pub prompt_tokens: u64,
    /// Of those, tokens that a prefix block already held.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub generated_tokens: u64,
    /// Time in the engine's queue.
    pub queued: Duration,
    /// Shares of the engine's steps; those of all rows add up to the time it was busy.
    pub computed: Duration,
}

impl Used {
    /// One request of which this is known.
    pub(crate) fn of(usage: Usage, timing: &Timing) -> Self {
        Self {
            requests: 1,
            blended_requests: 0,
            prompt_tokens: usage.prompt_tokens.into(),
            cached_tokens: usage.cached_tokens.into(),
            generated_tokens: usage.completion_tokens.into(),
            queued: timing.started.unwrap_or_default(),
            computed: timing.computed,
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.blended_requests = self.blended_requests.saturating_add(other.blended_requests);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.generated_tokens = self.generated_tokens.saturating_add(other.generated_tokens);
        self.queued = self.queued.saturating_add(other.queued);
        self.computed = self.computed.saturating_add(other.computed);
    }
}

/// Loads of one adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    /// Loads that ended well.
    pub count: u64,
    /// Bytes that they brought into memory. Those of a blend are divided among its parts.
    pub bytes: u64,
}

/// What one adapter used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// By everybody.
    pub used: Used,
    /// Loads of it.
    pub loads: Loads,
    /// By tenant, in the order of their names.
    pub tenants: Vec<(String, Used)>,
    /// By tenants that no row was left for.
    pub other_tenants: Used,
}

/// Everything that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// By all requests, each once.
    pub total: Used,
    /// By the base model alone.
    pub base: UsageRow,
    /// By adapter, in the order of their names. A blend's use stands in full at each of its parts.
    pub adapters: Vec<(String, UsageRow)>,
    /// By adapters that no row was left for.
    pub other_adapters: UsageRow,
}

/// The book that requests are entered in.
#[derive(Debug, Default)]
pub struct UsageBook {
    book: Mutex<Book>,
    /// Runs that have not ended: as many as the engine takes.
    running: Mutex<HashMap<u64, Running>>,
    places: AtomicU64,
}

#[derive(Debug)]
struct Running {
    adapters: Vec<String>,
    sequences: Vec<Progress>,
}

#[derive(Debug, Default)]
struct Book {
    total: Used,
    base: Entry,
    adapters: HashMap<Box<str>, Entry>,
    others: Entry,
    /// Rows of tenants in all entries.
    tenant_rows: usize,
}

#[derive(Debug, Default)]
struct Entry {
    used: Used,
    loads: Loads,
    tenants: HashMap<Box<str>, Used>,
    other_tenants: Used,
}

impl UsageBook {
    /// Enters one request of `tenant` that was answered by the base model, by an adapter, or by several
    /// together.
    pub(crate) fn add(&self, adapters: &[String], tenant: &str, used: Used) {
        let mut book = self.lock();
        book.total.add(&used);
        if adapters.is_empty() {
            let Book { base, tenant_rows, .. } = &mut *book;
            base.add(tenant, &used, tenant_rows);
        }
        let blended_requests = if adapters.len() > 1 { used.requests } else { 0 };
        let used = Used { blended_requests, ..used };
        for adapter in adapters {
            let (entry, tenant_rows) = book.entry(adapter);
            entry.add(tenant, &used, tenant_rows);
        }
    }

    /// Enters a load of an adapter, or of several for one blend.
    pub fn loaded(&self, adapters: &[&str], bytes: u64) {
        let mut book = self.lock();
        let share = bytes / adapters.len().max(1) as u64;
        for adapter in adapters {
            let Loads { count, bytes } = &mut book.entry(adapter).0.loads;
            (*count, *bytes) = (count.saturating_add(1), bytes.saturating_add(share));
        }
    }

    /// A run has begun; its place.
    pub(crate) fn enter(&self, adapters: &[String], sequences: &[Progress]) -> u64 {
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        if !adapters.is_empty() {
            let run = Running { adapters: adapters.to_vec(), sequences: sequences.to_vec() };
            self.runs().insert(place, run);
        }
        place
    }

    /// It has ended.
    pub(crate) fn leave(&self, place: u64) {
        self.runs().remove(&place);
    }

    /// Adapters of runs that run, and of those that wait.
    pub(crate) fn adapters_now(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut running, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for run in self.runs().values() {
            let runs = run.sequences.iter().any(|sequence| sequence.timing().started.is_some());
            let of = if runs { &mut running } else { &mut waiting };
            of.extend(run.adapters.iter().cloned());
        }
        (running, waiting)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        // A map is whole between any two statements.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows, as of now.
    #[must_use]
    pub fn report(&self) -> UsageReport {
        let book = self.lock();
        let mut adapters: Vec<(String, UsageRow)> =
            book.adapters.iter().map(|(name, entry)| (name.to_string(), entry.row())).collect();
        let (total, base, other_adapters) = (book.total, book.base.row(), book.others.row());
        drop(book);
        adapters.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        UsageReport { total, base, adapters, other_adapters }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Sums are whole between any two statements.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn entry(&mut self, adapter: &str) -> (&mut Entry, &mut usize) {
        let known = self.adapters.contains_key(adapter);
        if !known && (self.adapters.len() >= ADAPTERS_MAX || adapter.len() > NAME_BYTES_MAX) {
            return (&mut self.others, &mut self.tenant_rows);
        }
        if !known {
            self.adapters.insert(adapter.into(), Entry::default());
        }
        let entry = self.adapters.get_mut(adapter).expect("it is there or was put there");
        (entry, &mut self.tenant_rows)
    }
}

impl Entry {
    fn add(&mut self, tenant: &str, used: &Used, tenant_rows: &mut usize) {
        self.used.add(used);
        if let Some(row) = self.tenants.get_mut(tenant) {
            return row.add(used);
        }
        if *tenant_rows >= TENANT_ROWS_MAX || tenant.len() > NAME_BYTES_MAX {
            return self.other_tenants.add(used);
        }
        *tenant_rows += 1;
        self.tenants.insert(tenant.into(), *used);
    }

    fn row(&self) -> UsageRow {
        let mut tenants: Vec<(String, Used)> =
            self.tenants.iter().map(|(name, used)| (name.to_string(), *used)).collect();
        tenants.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let (used, loads, other_tenants) = (self.used, self.loads, self.other_tenants);
        UsageRow { used, loads, tenants, other_tenants }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(generated_tokens: u64) -> Used {
        Used {
            requests: 1,
            prompt_tokens: 10,
            cached_tokens: 4,
            generated_tokens,
            queued: Duration::from_millis(1),
            computed: Duration::from_millis(2),
            ..Used::default()
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_add_up() {
        let book = UsageBook::default();
        book.add(&[], "acme", used(1));
        book.add(&names(&["a"]), "acme", used(2));
        book.add(&names(&["a"]), "zeta", used(3));
        book.add(&names(&["a", "b"]), "acme", used(4));
        book.loaded(&["a"], 100);
        book.loaded(&["a", "b"], 101);
        let report = book.report();
        assert_eq!((report.total.requests, report.total.generated_tokens), (4, 10));
        assert_eq!(report.total.computed, Duration::from_millis(8));
        assert_eq!((report.base.used, report.base.tenants.len()), (used(1), 1));
        let (a, b) = (&report.adapters[0], &report.adapters[1]);
        assert_eq!((a.0.as_str(), b.0.as_str()), ("a", "b"));
        assert_eq!(
            (a.1.used.requests, a.1.used.blended_requests, a.1.used.generated_tokens),
            (3, 1, 9)
        );
        assert_eq!(a.1.loads, Loads { count: 2, bytes: 150 });
        assert_eq!(b.1.loads, Loads { count: 1, bytes: 50 });
        let of: Vec<(&str, u64)> =
            a.1.tenants.iter().map(|(name, used)| (name.as_str(), used.requests)).collect();
        assert_eq!(of, [("acme", 2), ("zeta", 1)]);
    }

    #[test]
    fn what_has_no_row_is_still_counted() {
        let book = UsageBook::default();
        for adapter in 0..ADAPTERS_MAX {
            book.add(&[adapter.to_string()], "t", used(1));
        }
        assert_eq!(book.report().other_adapters, UsageRow::default());
        book.add(&names(&["one more"]), "t", used(1));
        book.add(&names(&["0"]), "t", used(1));
        book.add(&["x".repeat(NAME_BYTES_MAX + 1)], "t", used(1));
        for tenant in 0..TENANT_ROWS_MAX {
            book.add(&names(&["1"]), &format!("{tenant} \"\n\u{202e}"), used(1));
        }
        let report = book.report();
        assert_eq!(report.adapters.len(), ADAPTERS_MAX);
        assert_eq!(report.other_adapters.used.requests, 2);
        let rows: usize = report.adapters.iter().map(|(_, row)| row.tenants.len()).sum();
        assert_eq!(rows + report.other_adapters.tenants.len(), TENANT_ROWS_MAX);
        let (_, one) = report.adapters.iter().find(|(name, _)| name == "1").expect("a row");
        let known: u64 = one.tenants.iter().map(|(_, used)| used.requests).sum();
        assert!(one.other_tenants.requests > 0);
        assert_eq!(known + one.other_tenants.requests, one.used.requests);
        let all: u64 = report.adapters.iter().map(|(_, row)| row.used.requests).sum();
        assert_eq!(all + report.other_adapters.used.requests, report.total.requests);
    }

    #[test]
    fn sums_end_at_their_largest() {
        let book = UsageBook::default();
        let most = Used { generated_tokens: u64::MAX, computed: Duration::MAX, ..Used::default() };
        book.add(&[], "t", most);
        book.add(&[], "t", used(1));
        let total = book.report().total;
        assert_eq!((total.generated_tokens, total.computed), (u64::MAX, Duration::MAX));
    }
}
