//! Counters, gauges and histograms, exported with the plugin's name as a label.

use super::backend;
use crate::types::Result;

/// What a metric does with an observed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Adds it; negative values are ignored.
    Counter,
    /// Takes it.
    Gauge,
    /// Observes it.
    Histogram,
}

/// A registered metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric(u32);

impl Metric {
    /// The metric of this name: lower-case letters, digits and `_`. The same name and kind gives the
    /// same metric.
    ///
    /// # Errors
    /// `invalid` for another name, `conflict` for a name of another kind, `over-budget` for too many.
    pub fn register(kind: Kind, name: &str) -> Result<Self> {
        backend::metric_register(kind, name).map(Self)
    }

    /// Hands `value` to the metric.
    pub fn observe(self, value: f64) {
        backend::metric_observe(self.0, value);
    }
}

/// Adds `by` to the counter `name`. Losing a count must not fail a request, so a refusal is dropped.
pub fn count(name: &str, by: u64) {
    if let Ok(metric) = Metric::register(Kind::Counter, name) {
        // Exact below 2^53.
        metric.observe(by as f64);
    }
}
