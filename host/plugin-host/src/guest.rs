//! What a store knows about its guest: which plugin it is, for which request, and what it may do.
//! The imports are implemented on it, one file each below `imports/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::capability::{CorpusCapability, GenerateCapability, TokenizerCapability};
use crate::clock::Deadline;
use crate::config::{CallLimits, ImportLimits};
use crate::imports::kv::KvStore;
use crate::imports::metrics::GuestMetrics;
use crate::limiter::Limiter;

/// What the imports of one plugin version work on; shared by its instances.
pub(crate) struct Lent {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Settings as `config.get` gives them.
    pub(crate) settings: BTreeMap<String, String>,
    /// The whole table.
    pub(crate) settings_json: String,
    /// Shared by all versions.
    pub(crate) kv: Arc<KvStore>,
    /// Shared by all versions.
    pub(crate) metrics: Arc<GuestMetrics>,
    pub(crate) tokenizer: Option<Arc<dyn TokenizerCapability>>,
    pub(crate) corpus: Option<Arc<dyn CorpusCapability>>,
    pub(crate) limits: ImportLimits,
    pub(crate) log_lines_dropped: Counter,
}

/// An agent run's way back into the host.
pub(crate) struct AgentRun {
    pub(crate) generate: Arc<dyn GenerateCapability>,
    /// Tokens it may still use.
    pub(crate) left: u32,
}

/// Data of one store.
pub(crate) struct Guest {
    pub(crate) lent: Arc<Lent>,
    pub(crate) request_id: String,
    pub(crate) limiter: Limiter,
    /// Of the present call, where it is synchronous.
    pub(crate) deadline: Deadline,
    /// Ticks of the clock that the present call may still run through, where it is asynchronous.
    pub(crate) slices_left: u64,
    pub(crate) log_lines_left: u32,
    pub(crate) run: Option<AgentRun>,
}

impl Guest {
    pub(crate) fn new(lent: Arc<Lent>, request_id: &str, limits: &CallLimits) -> Self {
        Self {
            log_lines_left: lent.limits.log_lines_max,
            lent,
            request_id: request_id.to_owned(),
            limiter: Limiter::new(limits),
            deadline: Deadline::start(0, 1),
            slices_left: 0,
            run: None,
        }
    }
}
