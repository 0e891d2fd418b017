//! `metrics`: counters, gauges and histograms of a plugin's own, exported in three families with
//! the plugin's name and the metric's as labels, so that no plugin can shadow a metric of the host.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::bindings::metrics::{Host, Kind};
use crate::bindings::types::Error;
use crate::config::ImportLimits;
use crate::guest::Guest;
use crate::imports::error;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    plugin: String,
    name: String,
}

type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// The three families, shared by all plugins.
#[derive(Clone)]
pub(crate) struct GuestFamilies {
    counters: Family<Labels, FloatCounter>,
    gauges: Family<Labels, FloatGauge>,
    histograms: Family<Labels, Histogram, fn() -> Histogram>,
}

impl GuestFamilies {
    pub(crate) fn new() -> Self {
        Self {
            counters: Family::default(),
            gauges: Family::default(),
            histograms: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 12))
            }),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mortise_plugin_own",
            "Counters that plugins keep, by plugin and name",
            self.counters.clone(),
        );
        registry.register(
            "mortise_plugin_own_gauge",
            "Gauges that plugins keep, by plugin and name",
            self.gauges.clone(),
        );
        registry.register(
            "mortise_plugin_own_histogram",
            "Histograms that plugins keep, by plugin and name",
            self.histograms.clone(),
        );
    }
}

#[derive(Clone)]
enum Metric {
    Counter(FloatCounter),
    Gauge(FloatGauge),
    Histogram(Histogram),
}

impl Metric {
    fn is(&self, kind: Kind) -> bool {
        match self {
            Self::Counter(_) => kind == Kind::Counter,
            Self::Gauge(_) => kind == Kind::Gauge,
            Self::Histogram(_) => kind == Kind::Histogram,
        }
    }
}

/// One plugin's metrics. An id is a place in the list, and places are never reused.
pub(crate) struct GuestMetrics {
    plugin: String,
    families: GuestFamilies,
    limits: ImportLimits,
    known: Mutex<Vec<(String, Metric)>>,
}

impl GuestMetrics {
    pub(crate) fn new(plugin: &str, families: GuestFamilies, limits: ImportLimits) -> Self {
        Self { plugin: plugin.to_owned(), families, limits, known: Mutex::default() }
    }

    fn register(&self, kind: Kind, name: String) -> Result<u32, Error> {
        let most = self.limits.metric_name_bytes_max;
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > most || !name.bytes().all(word) {
            let message = format!("a name is 1 to {most} lower-case letters, digits and `_`");
            return Err(error("invalid", message));
        }
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let index = match known.iter().position(|(other, _)| *other == name) {
            Some(index) if known[index].1.is(kind) => index,
            Some(_) => return Err(error("conflict", format!("`{name}` is of another kind"))),
            None if known.len() >= self.limits.metrics_max => {
                let message = format!("a plugin has at most {} metrics", self.limits.metrics_max);
                return Err(error("over-budget", message));
            }
            None => {
                let metric = self.create(kind, &name);
                known.push((name, metric));
                known.len() - 1
            }
        };
        Ok(u32::try_from(index).expect("metrics_max is far below u32::MAX"))
    }

    fn create(&self, kind: Kind, name: &str) -> Metric {
        let labels = Labels { plugin: self.plugin.clone(), name: name.to_owned() };
        match kind {
            Kind::Counter => Metric::Counter(self.families.counters.get_or_create_owned(&labels)),
            Kind::Gauge => Metric::Gauge(self.families.gauges.get_or_create_owned(&labels)),
            Kind::Histogram => {
                Metric::Histogram(self.families.histograms.get_or_create_owned(&labels))
            }
        }
    }

    /// Unknown ids and numbers that are none are ignored: a metric is no reason to fail a request.
    fn observe(&self, id: u32, value: f64) {
        if !value.is_finite() {
            return;
        }
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match known.get(id as usize).map(|(_, metric)| metric) {
            Some(Metric::Counter(counter)) if value >= 0.0 => {
                counter.inc_by(value);
            }
            Some(Metric::Gauge(gauge)) => {
                gauge.set(value);
            }
            Some(Metric::Histogram(histogram)) => histogram.observe(value),
            Some(Metric::Counter(_)) | None => {}
        }
    }
}

impl Host for Guest {
    fn register(&mut self, kind: Kind, name: String) -> Result<u32, Error> {
        self.lent.metrics.register(kind, name)
    }

    fn observe(&mut self, id: u32, value: f64) {
        self.lent.metrics.observe(id, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(most: usize) -> (GuestMetrics, Registry) {
        let families = GuestFamilies::new();
        let mut registry = Registry::default();
        families.register(&mut registry);
        let limits = ImportLimits { metrics_max: most, ..ImportLimits::default() };
        (GuestMetrics::new("p", families, limits), registry)
    }

    fn code<T>(result: Result<T, Error>) -> Result<T, String> {
        result.map_err(|error| error.code)
    }

    #[test]
    fn names_and_numbers_are_bounded() {
        let (metrics, _) = metrics(2);
        assert_eq!(code(metrics.register(Kind::Counter, "a".into())), Ok(0));
        assert_eq!(code(metrics.register(Kind::Gauge, "b_2".into())), Ok(1));
        assert_eq!(code(metrics.register(Kind::Counter, "a".into())), Ok(0));
        assert_eq!(code(metrics.register(Kind::Gauge, "a".into())), Err("conflict".into()));
        assert_eq!(code(metrics.register(Kind::Gauge, "c".into())), Err("over-budget".into()));
        for name in ["", "A", "a b", "a{x=\"y\"}", "a\n", &"a".repeat(65)] {
            assert_eq!(code(metrics.register(Kind::Gauge, name.into())), Err("invalid".into()));
        }
    }

    #[test]
    fn values_are_exported_and_bad_ones_ignored() {
        let (metrics, registry) = metrics(4);
        let counter = code(metrics.register(Kind::Counter, "hits".into())).expect("room");
        let gauge = code(metrics.register(Kind::Gauge, "level".into())).expect("room");
        for value in [1.5, 2.0, -7.0, f64::NAN, f64::INFINITY] {
            metrics.observe(counter, value);
        }
        metrics.observe(gauge, -3.0);
        metrics.observe(99, 1.0);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let line = "mortise_plugin_own_total{plugin=\"p\",name=\"hits\"} 3.5";
        assert!(text.contains(line), "{text}");
        let line = "mortise_plugin_own_gauge{plugin=\"p\",name=\"level\"} -3.0";
        assert!(text.contains(line), "{text}");
    }
}
