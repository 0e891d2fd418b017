//! Counts and durations of the registry, for the server's `/metrics`.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Metrics of one registry. Cloning shares them.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    resident: Gauge,
    resident_bytes: Gauge,
    registered: Gauge,
    leases: Gauge,
    waiting: Gauge,
    loading: Gauge,
    hits: Counter,
    loads: Counter,
    load_failures: Counter,
    loaded_bytes: Counter,
    evictions: Counter,
    load_seconds: Histogram,
    wait_seconds: Histogram,
}

impl Default for RegistryMetrics {
    fn default() -> Self {
        // 0.1 ms to 52 s in steps of two.
        let seconds = || Histogram::new((0..20).map(|step| 1e-4 * f64::from(1 << step)));
        Self {
            resident: Gauge::default(),
            resident_bytes: Gauge::default(),
            registered: Gauge::default(),
            leases: Gauge::default(),
            waiting: Gauge::default(),
            loading: Gauge::default(),
            hits: Counter::default(),
            loads: Counter::default(),
            load_failures: Counter::default(),
            loaded_bytes: Counter::default(),
            evictions: Counter::default(),
            load_seconds: seconds(),
            wait_seconds: seconds(),
        }
    }
}

/// How much there is of what a registry holds, at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub(crate) resident: usize,
    pub(crate) resident_bytes: u64,
    pub(crate) registered: usize,
    pub(crate) leases: usize,
    pub(crate) loading: usize,
}

impl RegistryMetrics {
    /// Adds the metrics to `registry`.
    pub fn register(&self, to: &mut Registry) {
        let resident = "Adapters in memory";
        to.register("mortise_adapters_resident", resident, self.resident.clone());
        let bytes = "Bytes of adapters in memory and of loads that run";
        to.register("mortise_adapters_resident_bytes", bytes, self.resident_bytes.clone());
        let registered = "Names of adapters";
        to.register("mortise_adapters_registered", registered, self.registered.clone());
        let leases = "Holds of requests on adapters";
        to.register("mortise_adapter_leases", leases, self.leases.clone());
        let waiting = "Requests that wait for adapters";
        to.register("mortise_adapter_waiting", waiting, self.waiting.clone());
        let loading = "Loads that run or are queued";
        to.register("mortise_adapters_loading", loading, self.loading.clone());
        let hits = "Requests whose adapter was in memory";
        to.register("mortise_adapter_hits", hits, self.hits.clone());
        let loads = "Loads that ended well";
        to.register("mortise_adapter_loads", loads, self.loads.clone());
        let failures = "Loads that failed";
        to.register("mortise_adapter_load_failures", failures, self.load_failures.clone());
        let loaded = "Bytes of adapters that loads brought into memory";
        to.register("mortise_adapter_loaded_bytes", loaded, self.loaded_bytes.clone());
        let evictions = "Adapters that had to go for others";
        to.register("mortise_adapter_evictions", evictions, self.evictions.clone());
        let load = "Duration of a load";
        to.register("mortise_adapter_load_seconds", load, self.load_seconds.clone());
        let wait = "Time that a request waited for its adapter, if it had to";
        to.register("mortise_adapter_wait_seconds", wait, self.wait_seconds.clone());
    }

    pub(crate) fn observe(&self, levels: &Levels) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.resident, levels.resident);
        set(&self.registered, levels.registered);
        set(&self.leases, levels.leases);
        set(&self.loading, levels.loading);
        self.resident_bytes.set(i64::try_from(levels.resident_bytes).unwrap_or(i64::MAX));
    }

    /// One more request waits.
    pub(crate) fn waits(&self) {
        self.waiting.inc();
    }

    /// One of them has its adapter, or has left.
    pub(crate) fn waits_no_more(&self) {
        self.waiting.dec();
    }

    pub(crate) fn hit(&self) {
        self.hits.inc();
    }

    /// `bytes` is `None` for a load that failed.
    pub(crate) fn loaded(&self, took: Duration, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.loads.inc();
                self.loaded_bytes.inc_by(bytes);
                self.load_seconds.observe(took.as_secs_f64());
            }
            None => {
                self.load_failures.inc();
            }
        }
    }

    pub(crate) fn evicted(&self) {
        self.evictions.inc();
    }

    pub(crate) fn waited(&self, waited: Duration) {
        self.wait_seconds.observe(waited.as_secs_f64());
    }
}
