//! One installed version of a plugin and its typed calls. Each call makes an instance, asks it
//! once, and drops it; a stream keeps its instance until it ends.
//!
//! All but [`Plugin::run_agent`] are synchronous, may take as long as the limits allow, and belong
//! off the async threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use request::{Digest, Message};
use semver::Version;
use wasmtime::component::InstancePre;

use crate::bindings::{
    agent, agent_lifecycle, lifecycle, postprocessor, preprocessor, router, scorer,
};
use crate::capability::AgentContext;
use crate::config::{OnFailure, PluginPolicy};
use crate::convert;
use crate::fault::{FaultKind, PluginFault};
use crate::guest::Guest;
use crate::instance::{Running, Setting};
use crate::manifest::{Manifest, PluginKind};
use crate::metrics::{Hook, PluginMetrics};
use crate::stream::StreamFilter;
use crate::types::{
    Candidate, Evidence, PreprocessOutcome, RequestInfo, RouteDecision, SamplingView, Share,
};

/// Places of a component's exports, found once.
pub(crate) enum Exports {
    Router(lifecycle::GuestIndices, router::GuestIndices),
    Preprocessor(lifecycle::GuestIndices, preprocessor::GuestIndices),
    Postprocessor(lifecycle::GuestIndices, postprocessor::GuestIndices),
    Scorer(lifecycle::GuestIndices, scorer::GuestIndices),
    Agent(agent_lifecycle::GuestIndices, agent::GuestIndices),
}

impl Exports {
    /// Finds what `kind` must export.
    pub(crate) fn find(kind: PluginKind, pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        let sync = || lifecycle::GuestIndices::new(pre);
        Ok(match kind {
            PluginKind::Router => Self::Router(sync()?, router::GuestIndices::new(pre)?),
            PluginKind::Preprocessor => {
                Self::Preprocessor(sync()?, preprocessor::GuestIndices::new(pre)?)
            }
            PluginKind::Postprocessor => {
                Self::Postprocessor(sync()?, postprocessor::GuestIndices::new(pre)?)
            }
            PluginKind::Scorer => Self::Scorer(sync()?, scorer::GuestIndices::new(pre)?),
            PluginKind::Agent => {
                let lifecycle = agent_lifecycle::GuestIndices::new(pre)?;
                Self::Agent(lifecycle, agent::GuestIndices::new(pre)?)
            }
        })
    }
}

/// One version of a plugin. Kept by whoever pinned a chain with it; gone with the last of them.
pub struct Plugin {
    pub(crate) manifest: Manifest,
    pub(crate) version: String,
    pub(crate) digest: Digest,
    pub(crate) policy: PluginPolicy,
    pub(crate) setting: Setting,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) exports: Exports,
    pub(crate) metrics: PluginMetrics,
    pub(crate) counts: Counts,
}

/// What happened to one version.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) in_flight: AtomicU32,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, digest) = (self.name(), self.digest.short());
        write!(f, "Plugin({name}@{} {} {digest})", self.version, self.kind())
    }
}

/// Counts an open call or stream for as long as it lives.
pub(crate) struct InFlight {
    plugin: Arc<Plugin>,
}

impl InFlight {
    pub(crate) fn new(plugin: &Arc<Plugin>) -> Self {
        plugin.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        plugin.metrics.in_flight().inc();
        Self { plugin: Arc::clone(plugin) }
    }

    pub(crate) fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.plugin.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.plugin.metrics.in_flight().dec();
    }
}

impl Plugin {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Its version, as semver writes it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The same, to compare.
    pub(crate) fn semver(&self) -> &Version {
        &self.manifest.version
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PluginKind {
        self.manifest.kind
    }

    /// Digest of its component.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The operator's word on it.
    #[must_use]
    pub fn policy(&self) -> &PluginPolicy {
        &self.policy
    }

    /// Whether a request goes on without it when it fails.
    #[must_use]
    pub fn bypasses(&self) -> bool {
        self.policy.on_failure == OnFailure::Bypass
    }

    /// Asks a router who answers.
    ///
    /// # Errors
    /// The router's fault; naming a model that is not a candidate is one.
    pub fn route(
        self: &Arc<Self>,
        info: &RequestInfo,
        messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<RouteDecision, PluginFault> {
        self.observe(Hook::Route, || {
            let Exports::Router(lifecycle, hook) = &self.exports else {
                return Err(self.not_a(PluginKind::Router));
            };
            let mut running = Running::start(&self.setting, &self.pre, lifecycle, &info.id)?;
            let decision = running.call(Hook::Route, self.hook_ms(), |store, instance| {
                hook.load(&mut *store, instance)?.call_route(
                    store,
                    &convert::info_to_guest(info),
                    &convert::messages_to_guest(messages),
                    &convert::candidates_to_guest(candidates),
                )
            })?;
            convert::decision_from_guest(decision, candidates).map_err(broken(Hook::Route))
        })
    }

    /// Shows a preprocessor the conversation.
    ///
    /// # Errors
    /// The preprocessor's fault.
    pub fn preprocess(
        self: &Arc<Self>,
        info: &RequestInfo,
        messages: &[Message],
        sampling: &SamplingView,
    ) -> Result<PreprocessOutcome, PluginFault> {
        self.observe(Hook::Process, || {
            let Exports::Preprocessor(lifecycle, hook) = &self.exports else {
                return Err(self.not_a(PluginKind::Preprocessor));
            };
            let mut running = Running::start(&self.setting, &self.pre, lifecycle, &info.id)?;
            let outcome = running.call(Hook::Process, self.hook_ms(), |store, instance| {
                hook.load(&mut *store, instance)?.call_process(
                    store,
                    &convert::info_to_guest(info),
                    &convert::messages_to_guest(messages),
                    &convert::sampling_to_guest(sampling),
                )
            })?;
            convert::outcome_from_guest(outcome).map_err(broken(Hook::Process))
        })
    }

    /// Opens a postprocessor's instance for one stream.
    ///
    /// # Errors
    /// The postprocessor's fault.
    pub fn open_stream(self: &Arc<Self>, info: &RequestInfo) -> Result<StreamFilter, PluginFault> {
        self.observe(Hook::Open, || {
            let Exports::Postprocessor(lifecycle, hook) = &self.exports else {
                return Err(self.not_a(PluginKind::Postprocessor));
            };
            let mut running = Running::start(&self.setting, &self.pre, lifecycle, &info.id)?;
            let guest = running.call(Hook::Open, self.hook_ms(), |store, instance| {
                let guest = hook.load(&mut *store, instance)?;
                let opened = guest.call_open(store, &convert::info_to_guest(info))?;
                Ok(opened.map(|()| guest))
            })?;
            Ok(StreamFilter::new(InFlight::new(self), running, guest))
        })
    }

    /// Asks a scorer for shares: owners below `evidence.owners`, each once, summing to exactly
    /// [`crate::SHARES_TOTAL`], or none.
    ///
    /// # Errors
    /// The scorer's fault; shares that break those rules are one.
    pub fn score(
        self: &Arc<Self>,
        info: &RequestInfo,
        evidence: &Evidence,
    ) -> Result<Vec<Share>, PluginFault> {
        self.observe(Hook::Score, || {
            let Exports::Scorer(lifecycle, hook) = &self.exports else {
                return Err(self.not_a(PluginKind::Scorer));
            };
            let mut running = Running::start(&self.setting, &self.pre, lifecycle, &info.id)?;
            let shares = running.call(Hook::Score, self.hook_ms(), |store, instance| {
                hook.load(&mut *store, instance)?.call_score(
                    store,
                    &convert::info_to_guest(info),
                    &convert::evidence_to_guest(evidence),
                )
            })?;
            convert::shares_from_guest(&shares, evidence.owners).map_err(broken(Hook::Score))
        })
    }

    /// Lets an agent answer. It runs on the caller's task, yields at every tick of the clock, and
    /// must be awaited inside a tokio runtime with time. Dropping the future ends the run.
    ///
    /// # Errors
    /// The agent's fault.
    pub async fn run_agent(
        self: &Arc<Self>,
        info: RequestInfo,
        messages: Vec<Message>,
        context: AgentContext,
    ) -> Result<Message, PluginFault> {
        let _in_flight = InFlight::new(self);
        let begun = Instant::now();
        let outcome = crate::agent::run(self, &info, &messages, context).await;
        self.settle(Hook::Run, begun, outcome)
    }

    pub(crate) fn hook_ms(&self) -> u64 {
        self.setting.limits.hook_ms_max
    }

    /// Runs `call`, counts it and names its fault.
    pub(crate) fn observe<T>(
        self: &Arc<Self>,
        hook: Hook,
        call: impl FnOnce() -> Result<T, FaultKind>,
    ) -> Result<T, PluginFault> {
        let _in_flight = InFlight::new(self);
        let begun = Instant::now();
        let outcome = call();
        self.settle(hook, begun, outcome)
    }

    pub(crate) fn settle<T>(
        &self,
        hook: Hook,
        begun: Instant,
        outcome: Result<T, FaultKind>,
    ) -> Result<T, PluginFault> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.metrics.called(hook, begun.elapsed().as_secs_f64());
        outcome.map_err(|kind| {
            self.counts.faults.fetch_add(1, Ordering::Relaxed);
            self.metrics.faulted(kind.label());
            self.fault(kind)
        })
    }

    pub(crate) fn fault(&self, kind: FaultKind) -> PluginFault {
        PluginFault {
            plugin: self.name().into(),
            version: self.version().into(),
            digest: self.digest,
            kind,
        }
    }

    pub(crate) fn not_a(&self, kind: PluginKind) -> FaultKind {
        FaultKind::Incompatible { reason: format!("it is a {}, not a {kind}", self.kind()) }
    }
}

/// Makes a fault of a broken rule.
pub(crate) fn broken(hook: Hook) -> impl Fn(String) -> FaultKind {
    move |rule| FaultKind::Broken { hook: hook.as_str(), rule }
}
