//! Answers of the pipeline to one JSON object. Never writes a part of one: that is `stream`'s.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use pipeline::{AnswerEvent, Summary, TokenPiece};
use request::{FinishReason, RequestId, TokenId, Usage};

use super::calls::{CallReader, Reading};
use super::error::ApiError;
use super::observed::Observed;
use super::wire::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::wire::mortise::MortiseWire;
use super::wire::object::{AssistantMessage, ChatChoice, CompletionChoice, MortiseField, Object};
use super::wire::sampling::Shape;
use crate::telemetry::Operation;

/// Which of the two endpoints an answer is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
}

impl Endpoint {
    /// What spans call it.
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Chat => Operation::Chat,
            Self::Completion => Operation::TextCompletion,
        }
    }

    /// What a whole answer is called.
    fn object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::Completion => "text_completion",
        }
    }
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
    /// How the answers are read.
    pub(crate) reading: Reading,
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
pub(crate) struct Gathered {
    pub(crate) text: String,
    pub(crate) pieces: Vec<TokenPiece>,
    pub(crate) ids: Vec<TokenId>,
    pub(crate) reason: Option<FinishReason>,
}

/// Waits for every answer and writes them as one object.
///
/// # Errors
/// The first failure; the other answers are dropped, which cancels them.
pub(crate) async fn collect(
    answers: Vec<Observed>,
    envelope: Envelope,
) -> Result<Response, ApiError> {
    let model = answers.first().map(|answer| answer.model.clone()).unwrap_or_default();
    let by_plugin = answers.first().is_some_and(|answer| answer.prompt.is_empty());
    let ends = try_join_all(answers.into_iter().map(|answer| gather(answer, envelope.n))).await?;
    let (mut usage, mut mortise) = (Usage::default(), Vec::new());
    let (mut choices, mut prompts) = (Vec::new(), Vec::new());
    for (prompt, end) in ends.into_iter().enumerate() {
        usage = usage.plus(end.summary.usage);
        mortise.push(MortiseWire::new(&end.id, end.summary));
        let indexed = end.choices.into_iter().zip(0..);
        choices.extend(indexed.map(|(choice, index)| (envelope.index(prompt, index), choice)));
        prompts.push(end.prompt);
    }
    let object = Object::<()> {
        id: envelope.id.as_str(),
        object: envelope.endpoint.object(),
        created: envelope.created,
        model: model.as_str(),
        choices: Vec::new(),
        system_fingerprint: envelope.fingerprint.as_str(),
        prompt_token_ids: None,
        usage: Some(Some(usage.into())),
        mortise: MortiseField::new(mortise),
    };
    let shape = envelope.shape;
    Ok(match envelope.endpoint {
        Endpoint::Chat => {
            let choice = |(index, gathered): (u32, Gathered)| {
                let reader = CallReader::new(&envelope.reading, &envelope.id, index, by_plugin);
                chat_choice((index, gathered), reader, shape)
            };
            let choices = choices.into_iter().map(choice).collect();
            let prompt = prompts.first().filter(|_| shape.token_ids).map(AsRef::as_ref);
            let object = Object { prompt_token_ids: prompt, ..object.with(choices) };
            Json(object).into_response()
        }
        Endpoint::Completion => {
            let choice = |(index, gathered): (u32, Gathered)| {
                let prompt = prompts.get((index / envelope.n) as usize);
                let choice = text_choice((index, gathered), shape);
                let ids = prompt.filter(|_| shape.token_ids).map(|ids| ids.to_vec());
                CompletionChoice { prompt_token_ids: ids, ..choice }
            };
            Json(object.with(choices.into_iter().map(choice).collect())).into_response()
        }
    })
}

/// One prompt's answer, complete.
pub(crate) struct End {
    pub(crate) id: RequestId,
    pub(crate) prompt: Arc<[TokenId]>,
    pub(crate) choices: Vec<Gathered>,
    pub(crate) summary: Summary,
}

/// Waits for one answer of `n` choices.
///
/// # Errors
/// The answer's failure.
pub(crate) async fn gather(mut answer: Observed, n: u32) -> Result<End, ApiError> {
    let mut choices: Vec<Gathered> = (0..n).map(|_| Gathered::default()).collect();
    while let Some(event) = answer.next().await {
        match event {
            AnswerEvent::Delta { choice, text, tokens, ids } => {
                if let Some(gathered) = choices.get_mut(choice as usize) {
                    gathered.text.push_str(&text);
                    gathered.pieces.extend(tokens);
                    gathered.ids.extend(ids);
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
                let (id, prompt) = (answer.id.clone(), Arc::clone(&answer.prompt));
                return Ok(End { id, prompt, choices, summary });
            }
            AnswerEvent::Failed(error) => return Err(error.into()),
        }
    }
    Err(ApiError::internal(&"the answer ended without a summary"))
}

fn chat_choice((index, gathered): (u32, Gathered), reader: CallReader, shape: Shape) -> ChatChoice {
    let reason = gathered.reason.unwrap_or(FinishReason::Stop);
    let (spoken, finish_reason) = reader.whole(gathered.text, reason);
    let logprobs = shape.logprobs.then(|| {
        let mut all = ChatLogprobs::default();
        all.push(gathered.pieces);
        all
    });
    let message = AssistantMessage::new(spoken);
    let token_ids = shape.token_ids.then_some(gathered.ids);
    ChatChoice { index, message, logprobs, finish_reason, token_ids }
}

fn text_choice((index, gathered): (u32, Gathered), shape: Shape) -> CompletionChoice {
    let finish_reason = Some(gathered.reason.unwrap_or(FinishReason::Stop).as_str());
    let logprobs = shape.logprobs.then(|| {
        let mut all = CompletionLogprobs::default();
        all.push(gathered.pieces, &mut 0);
        all
    });
    let token_ids = shape.token_ids.then_some(gathered.ids);
    let text = gathered.text;
    CompletionChoice { index, text, logprobs, finish_reason, prompt_token_ids: None, token_ids }
}
