//! One request as a span and three measurements. Whoever observes it learns how it ended, also if nobody
//! waits for it any more.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use engine::Timing;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Span;
use request::{FinishReason, Usage};

use super::Telemetry;

/// Who answers, for those who read spans of many servers.
const PROVIDER: &str = "mortise";
/// In metrics, a model that does not exist: names of clients must not become series.
const OTHER_MODEL: &str = "_OTHER";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    TextCompletion,
    Embeddings,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }
}

/// When a request came, and the span of its caller; nothing where nobody observes.
#[derive(Clone, Default)]
pub(crate) struct Arrival(Option<(Arc<Telemetry>, Instant, Context)>);

impl<S> FromRequestParts<S> for Arrival
where
    S: Send + Sync,
    Option<Arc<Telemetry>>: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let arrival = |telemetry| {
            let caller = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &HeaderExtractor(&parts.headers));
            (telemetry, Instant::now(), caller)
        };
        Ok(Self(Option::<Arc<Telemetry>>::from_ref(state).map(arrival)))
    }
}

/// What is asked, as far as spans tell of it. Never what was said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) operation: Operation,
    pub(crate) model: &'a str,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) seed: Option<u64>,
    pub(crate) choices: u32,
}

impl Arrival {
    /// Begins to observe a request.
    pub(crate) fn observe(&self, asked: &Asked<'_>) -> Observation {
        let Some((telemetry, at, caller)) = &self.0 else { return Observation(None) };
        let name = format!("{} {}", asked.operation.as_str(), asked.model);
        let begun = std::time::SystemTime::now().checked_sub(at.elapsed());
        let mut builder = telemetry.tracer.span_builder(name).with_kind(SpanKind::Server);
        builder.start_time = begun;
        builder.attributes = Some(attributes(asked));
        let span = telemetry.tracer.build_with_context(builder, caller);
        Observation(Some(Box::new(Running {
            telemetry: Arc::clone(telemetry),
            span,
            at: *at,
            operation: asked.operation,
            choices: asked.choices,
            asked: asked.model.to_owned(),
            answers: None,
            admitted: Duration::ZERO,
            reasons: Vec::new(),
        })))
    }
}

fn attributes(asked: &Asked<'_>) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("gen_ai.operation.name", asked.operation.as_str()),
        KeyValue::new("gen_ai.provider.name", PROVIDER),
        KeyValue::new("gen_ai.request.model", asked.model.to_owned()),
    ];
    let number =
        |name: &'static str, value: Option<i64>| value.map(|value| KeyValue::new(name, value));
    let real = |name: &'static str, value: Option<f32>| {
        value.map(|value| KeyValue::new(name, f64::from(value)))
    };
    all.extend(number("gen_ai.request.max_tokens", asked.max_tokens.map(i64::from)));
    all.extend(real("gen_ai.request.temperature", asked.temperature));
    all.extend(real("gen_ai.request.top_p", asked.top_p));
    all.extend(number("gen_ai.request.seed", asked.seed.map(u64::cast_signed)));
    let choices = (asked.choices != 1).then_some(i64::from(asked.choices));
    all.extend(number("gen_ai.request.choice.count", choices));
    all
}

/// A request that is observed, or not. Dropped before its end, it is one that nobody waited for.
pub(crate) struct Observation(Option<Box<Running>>);

struct Running {
    telemetry: Arc<Telemetry>,
    span: Span,
    at: Instant,
    operation: Operation,
    choices: u32,
    /// The model that was asked for.
    asked: String,
    /// The one that answers, once that is known.
    answers: Option<String>,
    /// Time until the engine had it.
    admitted: Duration,
    reasons: Vec<FinishReason>,
}

impl Observation {
    /// It was admitted under this id and is answered by this model.
    pub(crate) fn admitted(&mut self, id: &str, model: &str) {
        let Some(running) = &mut self.0 else { return };
        running.admitted = running.at.elapsed();
        running.answers = Some(model.to_owned());
        running.span.set_attribute(KeyValue::new("gen_ai.response.id", id.to_owned()));
        running.span.set_attribute(KeyValue::new("gen_ai.response.model", model.to_owned()));
    }

    /// One choice has ended.
    pub(crate) fn finished(&mut self, reason: FinishReason) {
        if let Some(running) = &mut self.0 {
            running.reasons.push(reason);
        }
    }

    /// All of it has ended well.
    pub(crate) fn done(&mut self, usage: Usage, timing: &Timing) {
        let Some(mut running) = self.0.take() else { return };
        running.used(usage);
        if let Some(first) = timing.first_token {
            let labels = running.labels(None);
            running.telemetry.first_token.record((running.admitted + first).as_secs_f64(), &labels);
            let behind = u64::from(usage.completion_tokens) / u64::from(running.choices.max(1));
            if let (Some(last), 2..) = (timing.last_token, behind) {
                let each = last.saturating_sub(first).as_secs_f64() / (behind - 1) as f64;
                running.telemetry.per_token.record(each, &labels);
            }
        }
        running.end(None);
    }

    /// It has failed; `kind` is one of a few words.
    pub(crate) fn failed(&mut self, kind: &str) {
        if let Some(running) = self.0.take() {
            running.end(Some(kind));
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.failed("cancelled");
    }
}

impl Running {
    fn used(&mut self, usage: Usage) {
        let counts = [
            ("gen_ai.usage.input_tokens", usage.prompt_tokens),
            ("gen_ai.usage.output_tokens", usage.completion_tokens),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
        ];
        for (name, tokens) in counts {
            self.span.set_attribute(KeyValue::new(name, i64::from(tokens)));
        }
        if !self.reasons.is_empty() {
            let reasons = self.reasons.iter().map(|reason| StringValue::from(reason.as_str()));
            let reasons = Value::Array(Array::String(reasons.collect()));
            self.span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        }
    }

    fn labels(&self, error: Option<&str>) -> Vec<KeyValue> {
        let mut labels = vec![
            KeyValue::new("gen_ai.operation.name", self.operation.as_str()),
            KeyValue::new("gen_ai.provider.name", PROVIDER),
        ];
        let asked = self.answers.as_ref().map_or(OTHER_MODEL, |_| self.asked.as_str());
        labels.push(KeyValue::new("gen_ai.request.model", asked.to_owned()));
        let answers = self.answers.clone();
        labels.extend(answers.map(|model| KeyValue::new("gen_ai.response.model", model)));
        labels.extend(error.map(|kind| KeyValue::new("error.type", kind.to_owned())));
        labels
    }

    fn end(mut self, error: Option<&str>) {
        let labels = self.labels(error);
        self.telemetry.duration.record(self.at.elapsed().as_secs_f64(), &labels);
        if let Some(kind) = error {
            self.span.set_attribute(KeyValue::new("error.type", kind.to_owned()));
            self.span.set_status(Status::error(kind.to_owned()));
        }
        self.span.end();
    }
}
