//! Answers of the pipeline to one JSON object.

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use pipeline::{Answer, AnswerEvent, Summary, TokenPiece};
use request::{FinishReason, RequestId, Usage};

use super::error::ApiError;
use super::wire::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::wire::mortise::MortiseWire;
use super::wire::object::{
    AssistantMessage, ChatChoice, CompletionChoice, MortiseField, Object, finish_reason,
};
use super::wire::sampling::Shape;

/// Which of the two endpoints an answer is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
}

/// What all objects of one HTTP request have in common.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) endpoint: Endpoint,
    /// Id of the first prompt's request.
    pub(crate) id: RequestId,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) fingerprint: String,
    pub(crate) shape: Shape,
    /// Choices of each prompt.
    pub(crate) n: u32,
}

impl Envelope {
    /// Index on the wire of a prompt's choice.
    pub(crate) fn index(&self, prompt: usize, choice: u32) -> u32 {
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        prompt.saturating_mul(self.n).saturating_add(choice)
    }
}

/// One choice, complete.
#[derive(Debug, Default)]
struct Gathered {
    text: String,
    pieces: Vec<TokenPiece>,
    reason: Option<FinishReason>,
}

/// Waits for every answer and writes them as one object.
///
/// # Errors
/// The first failure; the other answers are dropped, which cancels them.
pub(crate) async fn collect(
    answers: Vec<Answer>,
    envelope: Envelope,
) -> Result<Response, ApiError> {
    let model = answers.first().map(|answer| answer.model.clone()).unwrap_or_default();
    let ends = try_join_all(answers.into_iter().map(|answer| gather(answer, envelope.n))).await?;
    let (mut usage, mut mortise) = (Usage::default(), Vec::new());
    let mut choices = Vec::new();
    for (prompt, (id, gathered, summary)) in ends.into_iter().enumerate() {
        usage = usage.plus(summary.usage);
        mortise.push(MortiseWire::new(&id, summary));
        let indexed = gathered.into_iter().zip(0..);
        choices.extend(indexed.map(|(choice, index)| (envelope.index(prompt, index), choice)));
    }
    let usage = Some(Some(usage.into()));
    let mortise = MortiseField::new(mortise);
    let (id, created) = (envelope.id.as_str(), envelope.created);
    let (model, system_fingerprint) = (model.as_str(), envelope.fingerprint.as_str());
    let logprobs = envelope.shape.logprobs;
    Ok(match envelope.endpoint {
        Endpoint::Chat => {
            let object = "chat.completion";
            let choices = choices.into_iter().map(|choice| chat_choice(choice, logprobs)).collect();
            let all =
                Object { id, object, created, model, choices, system_fingerprint, usage, mortise };
            Json(all).into_response()
        }
        Endpoint::Completion => {
            let object = "text_completion";
            let choices = choices.into_iter().map(|choice| text_choice(choice, logprobs)).collect();
            let all =
                Object { id, object, created, model, choices, system_fingerprint, usage, mortise };
            Json(all).into_response()
        }
    })
}

async fn gather(
    mut answer: Answer,
    n: u32,
) -> Result<(RequestId, Vec<Gathered>, Summary), ApiError> {
    let mut choices: Vec<Gathered> = (0..n).map(|_| Gathered::default()).collect();
    while let Some(event) = answer.next().await {
        match event {
            AnswerEvent::Delta { choice, text, tokens } => {
                if let Some(gathered) = choices.get_mut(choice as usize) {
                    gathered.text.push_str(&text);
                    gathered.pieces.extend(tokens);
                }
            }
            AnswerEvent::Finished { choice, reason } => {
                if let Some(gathered) = choices.get_mut(choice as usize) {
                    gathered.reason = Some(reason);
                }
            }
            AnswerEvent::Done(summary) => {
                // An agent or a preprocessor answers once, whatever `n` is.
                choices.retain(|choice| choice.reason.is_some());
                return Ok((answer.id, choices, summary));
            }
            AnswerEvent::Failed(error) => return Err(error.into()),
        }
    }
    Err(ApiError::internal(&"the answer ended without a summary"))
}

fn reason_of(gathered: &Gathered) -> &'static str {
    finish_reason(gathered.reason.unwrap_or(FinishReason::Stop))
}

fn chat_choice((index, gathered): (u32, Gathered), logprobs: bool) -> ChatChoice {
    let finish_reason = reason_of(&gathered);
    let logprobs = logprobs.then(|| {
        let mut all = ChatLogprobs::default();
        all.push(gathered.pieces);
        all
    });
    let message = AssistantMessage::new(gathered.text);
    ChatChoice { index, message, logprobs, finish_reason }
}

fn text_choice((index, gathered): (u32, Gathered), logprobs: bool) -> CompletionChoice {
    let finish_reason = Some(reason_of(&gathered));
    let logprobs = logprobs.then(|| {
        let mut all = CompletionLogprobs::default();
        all.push(gathered.pieces, &mut 0);
        all
    });
    CompletionChoice { index, text: gathered.text, logprobs, finish_reason }
}
