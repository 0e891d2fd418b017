//! What the host counts about plugins, by plugin name: calls, time, faults, swaps.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::imports::metrics::GuestFamilies;

/// A call into a plugin, named as in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Init,
    Route,
    Process,
    Open,
    Push,
    Finish,
    Score,
    Run,
}

impl Hook {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Route => "route",
            Self::Process => "process",
            Self::Open => "open",
            Self::Push => "push",
            Self::Finish => "finish",
            Self::Score => "score",
            Self::Run => "run",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PluginLabel {
    pub(crate) plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    plugin: String,
    hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    plugin: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActLabels {
    plugin: String,
    act: &'static str,
}

/// The host's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct HostMetrics {
    calls: Family<HookLabels, Counter>,
    seconds: Family<HookLabels, Histogram, fn() -> Histogram>,
    faults: Family<FaultLabels, Counter>,
    acts: Family<ActLabels, Counter>,
    log_lines_dropped: Family<PluginLabel, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) guests: GuestFamilies,
}

impl std::fmt::Debug for HostMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostMetrics").finish_non_exhaustive()
    }
}

impl HostMetrics {
    pub(crate) fn new() -> Self {
        Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1e-6, 4.0, 13))
            }),
            faults: Family::default(),
            acts: Family::default(),
            log_lines_dropped: Family::default(),
            in_flight: Gauge::default(),
            guests: GuestFamilies::new(),
        }
    }

    /// Adds the host's families to `registry`, and with them the plugins' own metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "mortise_plugin_calls",
            "Calls into plugins, by plugin and hook",
            self.calls.clone(),
        );
        registry.register_with_unit(
            "mortise_plugin_call",
            "Wall time of calls into plugins, a fresh instance included, by plugin and hook",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "mortise_plugin_faults",
            "Calls that came to no valid result, by plugin and kind of fault",
            self.faults.clone(),
        );
        registry.register(
            "mortise_plugin_acts",
            "Installs, activations, rollbacks and deactivations, by plugin",
            self.acts.clone(),
        );
        registry.register(
            "mortise_plugin_log_lines_dropped",
            "Log lines of plugins over their limit, by plugin",
            self.log_lines_dropped.clone(),
        );
        registry.register(
            "mortise_plugin_in_flight",
            "Calls and streams of plugins that are open now",
            self.in_flight.clone(),
        );
        self.guests.register(registry);
    }

    /// One plugin's part of the metrics.
    pub(crate) fn of_plugin(&self, plugin: &str) -> PluginMetrics {
        PluginMetrics { plugin: plugin.to_owned(), host: self.clone() }
    }
}

/// The host's metrics under one plugin's name.
#[derive(Clone, Debug)]
pub(crate) struct PluginMetrics {
    plugin: String,
    host: HostMetrics,
}

impl PluginMetrics {
    pub(crate) fn called(&self, hook: Hook, seconds: f64) {
        let labels = HookLabels { plugin: self.plugin.clone(), hook: hook.as_str() };
        self.host.calls.get_or_create(&labels).inc();
        self.host.seconds.get_or_create(&labels).observe(seconds);
    }

    pub(crate) fn faulted(&self, kind: &'static str) {
        let labels = FaultLabels { plugin: self.plugin.clone(), kind };
        self.host.faults.get_or_create(&labels).inc();
    }

    pub(crate) fn acted(&self, act: &'static str) {
        let labels = ActLabels { plugin: self.plugin.clone(), act };
        self.host.acts.get_or_create(&labels).inc();
    }

    pub(crate) fn log_lines_dropped(&self) -> Counter {
        let labels = PluginLabel { plugin: self.plugin.clone() };
        self.host.log_lines_dropped.get_or_create_owned(&labels)
    }

    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.host.in_flight
    }
}
