//! What an alias named at one time: a directory as it was indexed, and, since its first load, one
//! generation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use request::AdapterGeneration;

use crate::index::Indexed;
use crate::seen::Seen;

/// Where an alias comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody named it.
    Named,
    /// It was found in the registry's folder, and goes when its directory does.
    Found,
}

/// What an alias named at one time. The files may change; this does not.
#[derive(Debug)]
pub(crate) struct Version {
    pub(super) id: u64,
    pub(super) alias: String,
    pub(super) indexed: Indexed,
    pub(super) origin: Origin,
    /// Of a blend, what it adds up and by how much.
    pub(super) parts: Vec<(Arc<Version>, f32)>,
    /// Set by the first load; a later one that finds something else is refused.
    pub(super) generation: OnceLock<AdapterGeneration>,
    /// Its weights file as of the last load that hashed it.
    pub(super) seen: Mutex<Option<Seen>>,
    pub(super) counts: Counts,
}

/// What happened to a version. Changed under the registry's lock, read without it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) uses: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) evictions: AtomicU64,
    /// Nanoseconds after the registry's start, plus one; zero for never.
    last_used: AtomicU64,
}

impl Counts {
    pub(super) fn used(&self, now: Duration) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.last_used.store(nanos.saturating_add(1), Ordering::Relaxed);
    }

    fn unused_for(&self, now: Duration) -> Option<Duration> {
        let at = self.last_used.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_sub(Duration::from_nanos(at)))
    }
}

/// Where the weights of an alias are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// In files alone.
    Disk,
    /// A load runs or is queued.
    Loading,
    /// In memory.
    Memory,
}

impl Residence {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Loading => "loading",
            Self::Memory => "memory",
        }
    }
}

/// One alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Name that requests use.
    pub alias: String,
    /// Number of what the alias names now.
    pub version: u64,
    /// Hash of configuration and weights; `None` before the first load.
    pub generation: Option<AdapterGeneration>,
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Bytes of weights in memory, when they are there.
    pub bytes: u64,
    /// Last names of the modules it changes, sorted.
    pub targets: Vec<String>,
    /// Its directory.
    pub path: PathBuf,
    /// Where its weights are.
    pub residence: Residence,
    /// Requests that hold it.
    pub leases: usize,
    /// Requests that asked for it.
    pub uses: u64,
    /// Loads that ended well.
    pub loads: u64,
    /// Times its weights had to go for others.
    pub evictions: u64,
    /// Time since the last request; `None` before the first.
    pub unused_for: Option<Duration>,
}

impl Version {
    pub(super) fn info(&self, residence: Residence, leases: usize, now: Duration) -> AdapterInfo {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AdapterInfo {
            alias: self.alias.clone(),
            version: self.id,
            generation: self.generation.get().copied(),
            rank_max: self.indexed.rank_max,
            bytes: self.indexed.bytes,
            targets: self.indexed.targets.clone(),
            path: self.indexed.dir.clone(),
            residence,
            leases,
            uses: count(&self.counts.uses),
            loads: count(&self.counts.loads),
            evictions: count(&self.counts.evictions),
            unused_for: self.counts.unused_for(now),
        }
    }
}
