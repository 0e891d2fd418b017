//! Preprocessors: each sees what the one before it left, and may answer or reject at once.

use std::sync::Arc;

use ::request::Message;
use plugin_host::{Plugin, PreprocessOutcome, Reject, SamplingView};

use crate::context::Context;
use crate::error::PipelineError;
use crate::stage::blocking;

/// What the model is to see.
pub(crate) struct Prepared {
    pub(crate) messages: Vec<Message>,
    /// Whether any plugin changed the messages; if none did, token ids stay as they came.
    pub(crate) changed: bool,
    /// A plugin's own answer: the model is not asked.
    pub(crate) response: Option<Message>,
}

/// Runs the preprocessors of the request's chain in order.
pub(crate) async fn run(
    context: &mut Context,
    messages: Vec<Message>,
) -> Result<Prepared, PipelineError> {
    let mut prepared = Prepared { messages, changed: false, response: None };
    for plugin in context.chain.preprocessors().to_vec() {
        let (info, view) = (context.info(), sampling_view(context));
        let (guest, messages) = (Arc::clone(&plugin), prepared.messages.clone());
        let outcome = blocking(move || guest.preprocess(&info, &messages, &view)).await?;
        match context.settle(&plugin, outcome)? {
            None | Some(PreprocessOutcome::Unchanged) => {}
            Some(PreprocessOutcome::Change { messages, sampling }) => {
                prepared.changed |= messages != prepared.messages;
                prepared.messages = messages;
                if let Some(view) = sampling {
                    apply(context, view)?;
                }
            }
            Some(PreprocessOutcome::Respond(message)) => {
                prepared.response = Some(message);
                return Ok(prepared);
            }
            Some(PreprocessOutcome::Reject(reject)) => return Err(rejected(&plugin, reject)),
        }
    }
    Ok(prepared)
}

/// A plugin's policy answer as an error of the request.
pub(crate) fn rejected(plugin: &Plugin, reject: Reject) -> PipelineError {
    PipelineError::Rejected {
        plugin: plugin.name().to_owned(),
        status: reject.status,
        code: reject.code,
        message: reject.message,
        retry_after_ms: reject.retry_after_ms,
    }
}

fn sampling_view(context: &Context) -> SamplingView {
    let request = &context.request;
    SamplingView {
        max_tokens: request.max_tokens,
        temperature: Some(request.sampling.temperature),
        top_p: Some(request.sampling.top_p),
        stop: request.sampling.stop.clone(),
        seed: request.seed,
    }
}

/// Takes over what a plugin set. Its values go through the same checks as a client's.
fn apply(context: &mut Context, view: SamplingView) -> Result<(), PipelineError> {
    let request = &mut context.request;
    if view.max_tokens == Some(0) {
        let message = "a plugin set max_tokens to 0".to_owned();
        return Err(PipelineError::Invalid { param: "max_tokens", message });
    }
    request.max_tokens = view.max_tokens;
    // Without a word on it the seed that was drawn stays.
    request.seed = view.seed.or(request.seed);
    request.sampling.stop = view.stop;
    if let Some(temperature) = view.temperature {
        request.sampling.temperature = temperature;
    }
    if let Some(top_p) = view.top_p {
        request.sampling.top_p = top_p;
    }
    Ok(request.sampling.validate()?)
}
