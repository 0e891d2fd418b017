//! Requests as OpenTelemetry's conventions for generative AI have them: a span each, and three
//! histograms, sent over OTLP/HTTP where an endpoint is configured.
//!
//! Parts: [`endpoints`] (where to send), `sender` (how), [`observation`] (one request). A collector that is
//! down or slow costs spans, never a request: nothing here waits but threads of the SDK.

mod endpoints;
mod observation;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub(crate) use endpoints::Endpoints;
pub(crate) use observation::{Arrival, Asked, Observation, Operation};
use sender::Sender;

/// Longest wait for the last spans at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Who made a span or a metric.
const SCOPE: &str = "mortise";
/// Bounds of buckets in seconds, as the conventions have them.
const DURATIONS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKENS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TOKENS: [f64; 12] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0];

/// What observes requests.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: SdkTracer,
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
    per_token: Histogram<f64>,
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Telemetry {
    /// Begins to send. Must be called on the runtime that will do it.
    ///
    /// # Errors
    /// Endpoints that can't be sent to. One that does not answer is no error.
    pub(crate) fn start(endpoints: &Endpoints) -> Result<Arc<Self>> {
        let sender = Sender::new().context("make a client for OTLP")?;
        let mut traces = SdkTracerProvider::builder().with_resource(resource());
        if let Some(endpoint) = &endpoints.traces {
            let exporter = SpanExporter::builder().with_http().with_http_client(sender.clone());
            let exporter = exporter.with_endpoint(endpoint).build();
            let named = || format!("send spans to {endpoint}");
            traces = traces.with_batch_exporter(exporter.with_context(named)?);
        }
        let mut metrics = SdkMeterProvider::builder().with_resource(resource());
        if let Some(endpoint) = &endpoints.metrics {
            let exporter = MetricExporter::builder().with_http().with_http_client(sender);
            let exporter = exporter.with_endpoint(endpoint).build();
            let named = || format!("send metrics to {endpoint}");
            metrics = metrics.with_periodic_exporter(exporter.with_context(named)?);
        }
        Ok(Arc::new(Self::over(traces.build(), metrics.build())))
    }

    fn over(traces: SdkTracerProvider, metrics: SdkMeterProvider) -> Self {
        let meter = metrics.meter(SCOPE);
        let seconds = |name: &'static str, what: &'static str, bounds: &[f64]| {
            let histogram = meter.f64_histogram(name).with_description(what).with_unit("s");
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        Self {
            tracer: traces.tracer(SCOPE),
            duration: seconds("gen_ai.server.request.duration", "Time of a request", &DURATIONS),
            first_token: seconds(
                "gen_ai.server.time_to_first_token",
                "Time to the first token of a request that ended well",
                &FIRST_TOKENS,
            ),
            per_token: seconds(
                "gen_ai.server.time_per_output_token",
                "Time per token behind the first of a request that ended well",
                &TOKENS,
            ),
            traces,
            metrics,
        }
    }

    /// Sends what there is, for a bounded time.
    pub(crate) async fn shutdown(self: Arc<Self>) {
        let flush = tokio::task::spawn_blocking(move || {
            // Who can't be reached has been told of in the log.
            let _ = self.traces.shutdown_with_timeout(FLUSH_MAX);
            let _ = self.metrics.shutdown_with_timeout(FLUSH_MAX);
        });
        if tokio::time::timeout(FLUSH_MAX, flush).await.is_err() {
            tracing::warn!("the last spans and metrics were not taken in time");
        }
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word.
fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| SCOPE.to_owned());
    Resource::builder().with_service_name(name).build()
}
