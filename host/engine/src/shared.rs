//! State that the door and the thread share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::admission::Admission;
use crate::metrics::EngineMetrics;

/// Sizes of queues and cache, as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// KV blocks that are held.
    pub blocks_used: usize,
    /// All KV blocks.
    pub blocks_total: usize,
}

/// State that the door and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Sequences that were submitted and have not run yet.
    pub(crate) admission: Arc<Admission>,
    pub(crate) stats: Mutex<EngineStats>,
    pub(crate) metrics: EngineMetrics,
    pub(crate) draining: AtomicBool,
}

impl Shared {
    pub(crate) fn publish(&self, stats: EngineStats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}
