//! An answer of the pipeline that is observed while it is read. Changes nothing in it.

use std::ops::Deref;

use pipeline::{Answer, AnswerEvent, GenerateRequest, PipelineError};

use super::state::PublicState;
use crate::telemetry::{Arrival, Asked, Observation, Operation};

/// See the module. Dropped before its end, it is an answer that nobody waited for.
pub(crate) struct Observed {
    answer: Answer,
    observation: Observation,
}

impl Observed {
    /// Submits a request and observes what comes of it.
    ///
    /// # Errors
    /// The pipeline's.
    pub(crate) async fn submit(
        state: &PublicState,
        arrival: &Arrival,
        request: GenerateRequest,
        operation: Operation,
    ) -> Result<Self, PipelineError> {
        let mut observation = arrival.observe(&Asked {
            operation,
            model: &request.model,
            max_tokens: request.max_tokens,
            temperature: Some(request.sampling.temperature),
            top_p: Some(request.sampling.top_p),
            seed: request.seed,
            choices: request.n,
        });
        match state.pipeline.submit(request).await {
            Ok(answer) => {
                observation.admitted(answer.id.as_str(), &answer.model);
                Ok(Self { answer, observation })
            }
            Err(error) => {
                observation.failed(kind(&error));
                Err(error)
            }
        }
    }

    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<AnswerEvent> {
        let event = self.answer.next().await;
        match &event {
            Some(AnswerEvent::Delta { .. }) | None => {}
            Some(AnswerEvent::Finished { reason, .. }) => self.observation.finished(*reason),
            Some(AnswerEvent::Done(summary)) => {
                self.observation.done(summary.usage, &summary.timing)
            }
            Some(AnswerEvent::Failed(error)) => self.observation.failed(kind(error)),
        }
        event
    }
}

impl Deref for Observed {
    type Target = Answer;

    fn deref(&self) -> &Answer {
        &self.answer
    }
}

/// A failure in a word, for metrics: few, and none of a client's making.
pub(crate) fn kind(error: &PipelineError) -> &'static str {
    match error {
        PipelineError::ModelNotFound { .. } => "model_not_found",
        PipelineError::Sampling(_) | PipelineError::Invalid { .. } => "invalid_request",
        PipelineError::ContextOverflow { .. } => "context_length_exceeded",
        PipelineError::Overloaded { .. } => "overloaded",
        PipelineError::Expired { .. } => "deadline_exceeded",
        PipelineError::AdapterUnavailable { .. } => "adapter_unavailable",
        PipelineError::Draining => "draining",
        PipelineError::Rejected { .. } => "rejected",
        PipelineError::PluginFailed { .. } => "plugin_failed",
        _ => "internal_error",
    }
}
