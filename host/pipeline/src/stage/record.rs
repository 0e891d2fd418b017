//! The receipt: what went in, what came out, which versions of everything took part, and who is
//! credited. Returns once the entry is on disk.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::request::{Digest, Message, Usage};
use ledger::{AdapterRef, AttributionRecord, Entry, PluginRecord, ShareRecord, UsageRecord};
use tokio::sync::oneshot;

use crate::answer::AttributionStatus;
use crate::context::{Context, PluginUse};
use crate::error::PipelineError;
use crate::request::Input;
use crate::shared::Shared;
use crate::stage::attribute::Attributed;
use crate::stage::blocking;
use crate::stage::generate::ChoiceEnd;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Cancelled,
    Rejected,
    Failed,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// Appends the receipt and waits until it is on disk. Returns its hash in hex.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    context: &mut Context,
    ends: Vec<ChoiceEnd>,
    (outcome, usage, attributed): (Outcome, Usage, &Attributed),
) -> Result<String, PipelineError> {
    let texts: Vec<&[u8]> = ends.iter().map(|end| end.text.as_bytes()).collect();
    let output_digest = Digest::of_fields(texts);
    let reason = ends.first().map_or(outcome.as_str(), |end| end.reason.as_str()).to_owned();
    for end in ends {
        let (plugins, faults) = end.post.into_faults();
        context.absorb(plugins, &faults);
    }
    append(shared, context, (outcome, usage, attributed), (output_digest, reason)).await
}

/// Appends the receipt of an output that is known by its digest, with the reason of its end.
pub(crate) async fn append(
    shared: &Arc<Shared>,
    context: &Context,
    what: (Outcome, Usage, &Attributed),
    output: (Digest, String),
) -> Result<String, PipelineError> {
    let started = std::time::Instant::now();
    let entry = entry(shared, context, what, output);
    let (sender, receiver) = oneshot::channel();
    let ledger = Arc::clone(&shared.ledger);
    // The queue is bounded; when it is full, appending waits for the disk.
    blocking(move || {
        ledger.append(entry, move |written| {
            // Nobody waits any more if the server is going down; the entry is written all the same.
            let _ = sender.send(written);
        })
    })
    .await?
    .map_err(unwritten)?;
    let receipt =
        receiver.await.map_err(|_| unwritten("the ledger stopped"))?.map_err(unwritten)?;
    shared.metrics.recorded(started.elapsed());
    Ok(receipt.hash.to_string())
}

fn unwritten(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Internal { message: format!("failed to write the receipt: {error}") }
}

fn entry(
    shared: &Shared,
    context: &Context,
    (outcome, usage, attributed): (Outcome, Usage, &Attributed),
    (output_digest, finish_reason): (Digest, String),
) -> Entry {
    let request = &context.request;
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Entry {
        id: request.id.to_string(),
        unix_ms: u64::try_from(unix_ms).unwrap_or(u64::MAX),
        tenant: request.tenant.clone(),
        status: outcome.as_str().to_owned(),
        model: request.model.clone(),
        request_digest: ledger::Digest(request_digest(context).0),
        output_digest: ledger::Digest(output_digest.0),
        base_digest: ledger::Digest(shared.base.digest.0),
        tokenizer_digest: ledger::Digest(shared.tokenizer.digest()),
        adapter: context.adapter.clone().zip(context.generation).map(|(alias, generation)| {
            AdapterRef { alias, generation: ledger::Digest(generation.0.0) }
        }),
        plugins: context.uses.iter().map(plugin).collect(),
        corpus_digest: attributed.segment.map(ledger::Digest),
        attribution: attribution(attributed),
        usage: UsageRecord {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        },
        finish_reason,
        seed: request.seed.unwrap_or_default(),
    }
}

fn plugin(used: &PluginUse) -> PluginRecord {
    PluginRecord {
        kind: used.plugin.kind().as_str().to_owned(),
        name: used.plugin.name().to_owned(),
        version: used.plugin.version().to_string(),
        digest: ledger::Digest(used.plugin.digest().0),
        fault: used.fault.clone(),
        bypassed: used.bypassed,
    }
}

fn attribution(attributed: &Attributed) -> AttributionRecord {
    let found = &attributed.attribution;
    let share = |credit: &crate::answer::Credit| ShareRecord {
        contributor: credit.contributor.clone(),
        parts_per_billion: credit.parts_per_billion,
    };
    AttributionRecord {
        method: found.method.clone(),
        status: match found.status {
            AttributionStatus::Scored => "scored",
            AttributionStatus::None => "none",
            AttributionStatus::Failed => "failed",
        }
        .to_owned(),
        spans: u32::try_from(found.spans.len()).unwrap_or(u32::MAX),
        shares: found.credits.iter().map(share).collect(),
        note: found.note.clone(),
    }
}

/// What the client asked, independent of how its JSON was spelled: the input, field by field.
fn request_digest(context: &Context) -> Digest {
    let request = &context.request;
    let mut fields: Vec<Vec<u8>> =
        vec![context.endpoint.into(), request.model.clone().into_bytes()];
    match &request.input {
        Input::Chat(messages) => fields.extend(messages.iter().flat_map(message_fields)),
        Input::Text(text) => fields.push(text.clone().into_bytes()),
        Input::Tokens(tokens) => {
            fields.push(tokens.iter().flat_map(|token| token.to_le_bytes()).collect());
        }
    }
    fields.extend(request.tools.iter().map(|tool| format!("\0{tool}").into_bytes()));
    Digest::of_fields(fields.iter().map(Vec::as_slice))
}

/// Role and text; a message of calls, or of the result of one, is a single field that no role begins as.
fn message_fields(message: &Message) -> Vec<Vec<u8>> {
    if message.tool_calls.is_empty() && message.tool_call_id.is_none() {
        return vec![message.role.as_str().into(), message.content.clone().into_bytes()];
    }
    let written = serde_json::to_string(message).expect("messages are plain data");
    vec![format!("\0{written}").into_bytes()]
}
