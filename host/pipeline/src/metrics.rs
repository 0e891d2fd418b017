//! Counts and durations of stages, for the server's `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::meter::LoraInfo;
use crate::usage::UsageBook;

/// How a request ended, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Metrics of the pipeline. Cloning shares them.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    requests: Family<OutcomeLabels, Counter>,
    in_flight: Gauge,
    attribution_seconds: Histogram,
    record_seconds: Histogram,
    usage: Arc<UsageBook>,
    sequences_max: usize,
}

impl PipelineMetrics {
    /// `sequences_max` is what one step may have.
    pub(crate) fn new(usage: Arc<UsageBook>, sequences_max: usize) -> Self {
        // 0.1 ms to 3.3 s in steps of two.
        let buckets = || (0..16).map(|step| 1e-4 * f64::from(1 << step));
        Self {
            requests: Family::default(),
            in_flight: Gauge::default(),
            attribution_seconds: Histogram::new(buckets()),
            record_seconds: Histogram::new(buckets()),
            usage,
            sequences_max,
        }
    }

    /// Adds the metrics to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("mortise_requests", "Requests by outcome", self.requests.clone());
        registry.register(
            "mortise_requests_in_flight",
            "Admitted requests whose receipt is not written yet",
            self.in_flight.clone(),
        );
        registry.register(
            "mortise_attribution_seconds",
            "Time to find spans and score them",
            self.attribution_seconds.clone(),
        );
        registry.register(
            "mortise_record_seconds",
            "Time until a receipt was on disk",
            self.record_seconds.clone(),
        );
        let info = LoraInfo { book: Arc::clone(&self.usage), max: self.sequences_max };
        registry.register_collector(Box::new(info));
    }

    pub(crate) fn count(&self, outcome: &'static str) {
        self.requests.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A request is admitted, until what is returned is dropped.
    pub(crate) fn begun(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn attributed(&self, took: Duration) {
        self.attribution_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn recorded(&self, took: Duration) {
        self.record_seconds.observe(took.as_secs_f64());
    }
}

/// One of the requests in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
