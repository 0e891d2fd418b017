//! Counts and durations. Names are vLLM's where the meaning is the same, so that its dashboards
//! work; what vLLM does not have begins with `mortise_engine_`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use request::FinishReason;
use scheduler::SchedulerStats;

use crate::course::Timing;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishLabels {
    finished_reason: &'static str,
}

/// What KV blocks are doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlockLabels {
    state: &'static str,
}

/// One step that ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepReport {
    pub(crate) took: Duration,
    /// The model's part of it.
    pub(crate) forward: Duration,
    pub(crate) rows: usize,
    pub(crate) sequences: usize,
    pub(crate) adapters: usize,
}

/// Metrics of one engine. Cloning shares them.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    running: Gauge,
    waiting: Gauge,
    kv_usage: Gauge<f64, AtomicU64>,
    kv_blocks: Family<BlockLabels, Gauge>,
    prefix_queries: Counter,
    prefix_hits: Counter,
    preemptions: Counter,
    refusals: Counter,
    expirations: Counter,
    drafts: Counter,
    draft_tokens: Counter,
    accepted_tokens: Counter,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    finished: Family<FinishLabels, Counter>,
    first_token_seconds: Histogram,
    inter_token_seconds: Histogram,
    queue_seconds: Histogram,
    prefill_seconds: Histogram,
    decode_seconds: Histogram,
    inference_seconds: Histogram,
    request_seconds: Histogram,
    step_seconds: Histogram,
    forward_seconds: Histogram,
    step_tokens: Histogram,
    step_sequences: Histogram,
    step_adapters: Histogram,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        // 0.25 ms to 65 s in steps of two.
        let seconds = || Histogram::new((0..19).map(|step| 2.5e-4 * f64::from(1 << step)));
        let counts = || Histogram::new((0..14).map(|step| f64::from(1 << step)));
        let adapters = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 16.0, 32.0, 64.0, 128.0];
        Self {
            running: Gauge::default(),
            waiting: Gauge::default(),
            kv_usage: Gauge::default(),
            kv_blocks: Family::default(),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            preemptions: Counter::default(),
            refusals: Counter::default(),
            expirations: Counter::default(),
            drafts: Counter::default(),
            draft_tokens: Counter::default(),
            accepted_tokens: Counter::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            finished: Family::default(),
            first_token_seconds: seconds(),
            inter_token_seconds: seconds(),
            queue_seconds: seconds(),
            prefill_seconds: seconds(),
            decode_seconds: seconds(),
            inference_seconds: seconds(),
            request_seconds: seconds(),
            step_seconds: seconds(),
            forward_seconds: seconds(),
            step_tokens: counts(),
            step_sequences: counts(),
            step_adapters: Histogram::new(adapters),
        }
    }
}

impl EngineMetrics {
    /// Adds the metrics to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.register_counts(registry);
        self.register_histograms(registry);
    }

    fn register_counts(&self, to: &mut Registry) {
        to.register("vllm:num_requests_running", "Sequences that run", self.running.clone());
        to.register("vllm:num_requests_waiting", "Sequences that wait", self.waiting.clone());
        let usage = "Share of KV blocks that are held, 0 to 1";
        to.register("vllm:kv_cache_usage_perc", usage, self.kv_usage.clone());
        let blocks =
            "KV blocks that are used, hold a prefix that nobody uses (cached), or are free";
        to.register("mortise_engine_kv_blocks", blocks, self.kv_blocks.clone());
        let queries = "Prompt tokens looked up in the prefix cache";
        to.register("vllm:prefix_cache_queries", queries, self.prefix_queries.clone());
        let hits = "Prompt tokens found in the prefix cache";
        to.register("vllm:prefix_cache_hits", hits, self.prefix_hits.clone());
        let preemptions = "Sequences that lost their blocks to others";
        to.register("vllm:num_preemptions", preemptions, self.preemptions.clone());
        to.register("vllm:prompt_tokens", "Prompt tokens", self.prompt_tokens.clone());
        to.register("vllm:generation_tokens", "Tokens sampled", self.generation_tokens.clone());
        let finished = "Sequences that ended by themselves";
        to.register("vllm:request_success", finished, self.finished.clone());
        let refusals = "Requests that the queue had no room for";
        to.register("mortise_engine_refused", refusals, self.refusals.clone());
        let expirations = "Requests that did not run in time";
        to.register("mortise_engine_expired", expirations, self.expirations.clone());
        let drafts = "Times that tokens were guessed";
        to.register("vllm:spec_decode_num_drafts", drafts, self.drafts.clone());
        let tokens = "Tokens guessed";
        to.register("vllm:spec_decode_num_draft_tokens", tokens, self.draft_tokens.clone());
        let accepted = "Tokens guessed rightly";
        to.register("vllm:spec_decode_num_accepted_tokens", accepted, self.accepted_tokens.clone());
    }

    fn register_histograms(&self, to: &mut Registry) {
        let first = "Arrival to first token";
        to.register("vllm:time_to_first_token_seconds", first, self.first_token_seconds.clone());
        let inter = "Token to next token";
        to.register("vllm:inter_token_latency_seconds", inter, self.inter_token_seconds.clone());
        let queue = "Arrival to first step";
        to.register("vllm:request_queue_time_seconds", queue, self.queue_seconds.clone());
        self.register_phases(to);
        let step = "Duration of a step";
        to.register("mortise_engine_step_seconds", step, self.step_seconds.clone());
        let forward = "The model's part of a step";
        to.register("mortise_engine_forward_seconds", forward, self.forward_seconds.clone());
        let tokens = "Rows of a step";
        to.register("mortise_engine_step_tokens", tokens, self.step_tokens.clone());
        let sequences = "Sequences of a step";
        to.register("mortise_engine_step_sequences", sequences, self.step_sequences.clone());
        let adapters = "Distinct adapters that shared a forward";
        to.register("mortise_engine_step_distinct_adapters", adapters, self.step_adapters.clone());
    }

    /// Of sequences that ended by themselves.
    fn register_phases(&self, to: &mut Registry) {
        let prefill = "First step to first token";
        to.register("vllm:request_prefill_time_seconds", prefill, self.prefill_seconds.clone());
        let decode = "First token to last token";
        to.register("vllm:request_decode_time_seconds", decode, self.decode_seconds.clone());
        let inference = "First step to last token";
        to.register(
            "vllm:request_inference_time_seconds",
            inference,
            self.inference_seconds.clone(),
        );
        let request = "Arrival to end";
        to.register("vllm:e2e_request_latency_seconds", request, self.request_seconds.clone());
    }

    pub(crate) fn observe_queues(&self, stats: &SchedulerStats) {
        self.running.set(i64::try_from(stats.running).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(stats.waiting).unwrap_or(i64::MAX));
        self.kv_usage.set(stats.blocks_used as f64 / stats.blocks_total as f64);
        let free = stats.blocks_total - stats.blocks_used - stats.blocks_cached;
        let blocks = [("used", stats.blocks_used), ("cached", stats.blocks_cached), ("free", free)];
        for (state, count) in blocks {
            let gauge = self.kv_blocks.get_or_create(&BlockLabels { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        // The scheduler counts from its start; a counter takes what is new.
        self.prefix_queries.inc_by(stats.prefix_queries - self.prefix_queries.get());
        self.prefix_hits.inc_by(stats.prefix_hits - self.prefix_hits.get());
        self.preemptions.inc_by(stats.preemptions - self.preemptions.get());
    }

    pub(crate) fn observe_start(&self, waited: Duration, prompt_tokens: usize) {
        self.queue_seconds.observe(waited.as_secs_f64());
        self.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    /// `since_last` is `None` for a first token, which counts from the arrival.
    pub(crate) fn observe_token(&self, since_last: Option<Duration>, since_arrival: Duration) {
        self.generation_tokens.inc();
        match since_last {
            Some(gap) => self.inter_token_seconds.observe(gap.as_secs_f64()),
            None => self.first_token_seconds.observe(since_arrival.as_secs_f64()),
        }
    }

    pub(crate) fn observe_step(&self, step: &StepReport) {
        self.step_seconds.observe(step.took.as_secs_f64());
        self.forward_seconds.observe(step.forward.as_secs_f64());
        self.step_tokens.observe(step.rows as f64);
        self.step_sequences.observe(step.sequences as f64);
        self.step_adapters.observe(step.adapters as f64);
    }

    pub(crate) fn observe_drafts(&self, drafted: usize, accepted: usize) {
        self.drafts.inc();
        self.draft_tokens.inc_by(drafted as u64);
        self.accepted_tokens.inc_by(accepted as u64);
    }

    pub(crate) fn observe_refusal(&self) {
        self.refusals.inc();
    }

    pub(crate) fn observe_expiration(&self) {
        self.expirations.inc();
    }

    /// Tokens guessed, and those of them that were right, since the start.
    #[must_use]
    pub fn drafts(&self) -> (u64, u64) {
        (self.draft_tokens.get(), self.accepted_tokens.get())
    }

    /// `lived` is the time since the arrival.
    pub(crate) fn observe_end(&self, reason: FinishReason, (timing, lived): (Timing, Duration)) {
        let finished_reason = reason.as_str();
        self.finished.get_or_create(&FinishLabels { finished_reason }).inc();
        self.request_seconds.observe(lived.as_secs_f64());
        let Some(started) = timing.started else { return };
        let last = timing.last_token.unwrap_or(lived);
        // What has no token is prefill from its start to its end.
        let first = timing.first_token.unwrap_or(last);
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        self.prefill_seconds.observe(seconds(started, first));
        self.decode_seconds.observe(seconds(first, last));
        self.inference_seconds.observe(seconds(started, last));
    }
}
