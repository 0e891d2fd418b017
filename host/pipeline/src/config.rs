//! Limits of the pipeline, each with its unit in its name.

use std::time::Duration;

use corpus::SpanLimits;

/// Limits of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct PipelineConfig {
    /// What counts as a span, and how much of it is reported.
    pub spans: SpanLimits,
    /// Most choices (`n`) of one request.
    pub choices_max: u32,
    /// What clients are told to wait when the queue is full, in seconds.
    pub retry_after_s: u32,
    /// Longest wait for an adapter that is not in memory.
    pub adapter_wait_max: Duration,
    /// Longest time that a client may leave its answer unread.
    pub client_stall_max: Duration,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        let spans = SpanLimits { min_tokens: 6, spans_max: 256, documents_per_span_max: 8 };
        let adapter_wait_max = Duration::from_secs(60);
        let client_stall_max = Duration::from_secs(60);
        Self { spans, choices_max: 8, retry_after_s: 1, adapter_wait_max, client_stall_max }
    }
}
