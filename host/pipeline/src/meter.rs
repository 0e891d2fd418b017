//! One run of the engine for somebody: who it is for, how far it has come, and what is entered in the book
//! when it has ended, however it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::request::Usage;
use engine::{OutputStream, Progress, Timing};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::usage::{UsageBook, Used};

/// Most adapters that the gauge names.
const NAMES_MAX: usize = 256;

/// Who a run is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payer {
    /// The adapter, or the parts of a blend; empty for the base model.
    pub(crate) adapters: Vec<String>,
    pub(crate) tenant: String,
}

/// A run. Dropping it enters it in the book.
#[derive(Debug)]
pub(crate) struct Meter {
    book: Arc<UsageBook>,
    payer: Payer,
    prompt_tokens: u32,
    sequences: Vec<Progress>,
    told: Option<Usage>,
    /// Its place among those that run.
    place: u64,
}

impl Meter {
    /// Of these sequences of one prompt.
    pub(crate) fn new<'a>(
        book: &Arc<UsageBook>,
        payer: Payer,
        prompt_tokens: u32,
        streams: impl IntoIterator<Item = &'a OutputStream>,
    ) -> Self {
        let sequences: Vec<Progress> = streams.into_iter().map(OutputStream::progress).collect();
        let place = book.enter(&payer.adapters, &sequences);
        let book = Arc::clone(book);
        Self { book, payer, prompt_tokens, sequences, told: None, place }
    }

    /// What the client is told that it used; without it, what the engine did is entered.
    pub(crate) fn tell(&mut self, usage: Usage) {
        self.told = Some(usage);
    }

    /// All sequences as one.
    pub(crate) fn timing(&self) -> Timing {
        self.sequences.iter().fold(Timing::default(), |all, one| all.and(one.timing()))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.book.leave(self.place);
        let timing = self.timing();
        let done = || Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.sequences.iter().map(Progress::generated_tokens).sum(),
            cached_tokens: self.sequences.iter().map(Progress::cached_tokens).min().unwrap_or(0),
        };
        let usage = match timing.started {
            Some(_) => self.told.unwrap_or_else(done),
            // Nothing was computed for it.
            None => Usage::default(),
        };
        self.book.add(&self.payer.adapters, &self.payer.tenant, Used::of(usage, &timing));
    }
}

/// The gauge by which vLLM tells which adapters its requests are for: one series, as of the scrape.
#[derive(Debug)]
pub(crate) struct LoraInfo {
    pub(crate) book: Arc<UsageBook>,
    /// Adapters that one step may have.
    pub(crate) max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoraLabels {
    max_lora: String,
    waiting_lora_adapters: String,
    running_lora_adapters: String,
}

impl Collector for LoraInfo {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (running, waiting) = self.book.adapters_now();
        let labels = LoraLabels {
            max_lora: self.max.to_string(),
            waiting_lora_adapters: list(&waiting),
            running_lora_adapters: list(&running),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let gauge = ConstGauge::new(now.as_secs_f64());
        let (name, help) = ("vllm:lora_requests_info", "Adapters of requests that run and wait.");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(metric.encode_family(&labels)?)
    }
}

/// Names with commas between them, as vLLM has them, and not without end.
fn list(names: &BTreeSet<String>) -> String {
    // A comma in a name would make two of it.
    let names = names.iter().take(NAMES_MAX).map(|name| name.replace(',', "_"));
    names.collect::<Vec<_>>().join(",")
}
