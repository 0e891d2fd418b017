//! Answers of the pipeline to server-sent events: chunks as they come, one last chunk with usage and
//! credits where they were asked for, `[DONE]`. The last chunk is sent once the receipt is on disk.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use pipeline::{AnswerEvent, TokenPiece};
use request::{FinishReason, RequestId, TokenId, Usage};
use serde::Serialize;

use super::answer::{Endpoint, Envelope};
use super::calls::{CallReader, Spoken};
use super::error::ApiError;
use super::observed::Observed;
use super::wire::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::wire::mortise::MortiseWire;
use super::wire::object::{
    CallWire, ChatChunkChoice, CompletionChoice, Delta, MortiseField, Object,
};
use super::wire::usage::WireUsage;

/// Proxies close connections that are silent for a minute; a comment now and then keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Writes answers as they come. Dropping the response drops the answers, which cancels them.
pub(crate) fn events(answers: Vec<Observed>, envelope: Envelope) -> Response {
    let prompts = answers.iter().map(|answer| Prompt::new(answer, &envelope)).collect();
    let sources = answers.into_iter().enumerate().map(|(prompt, answer)| {
        let next = async |mut answer: Observed| answer.next().await.map(|event| (event, answer));
        let source = stream::unfold(answer, next);
        Box::pin(source.map(move |event| (prompt, event))) as Source
    });
    let state = State {
        sources: stream::select_all(sources),
        writer: Writer { envelope, prompts, queue: VecDeque::new() },
        ended: false,
    };
    let body = stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    Sse::new(body).keep_alive(keep_alive()).into_response()
}

/// Comments that keep a silent stream open.
pub(crate) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(KEEP_ALIVE)
}

type Source = Pin<Box<dyn Stream<Item = (usize, AnswerEvent)> + Send>>;

struct State {
    sources: SelectAll<Source>,
    writer: Writer,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.writer.queue.pop_front() {
                return Some(Event::default().data(event));
            }
            if self.ended {
                return None;
            }
            let event = self.sources.next().await;
            self.ended = self.writer.take(event);
            if self.ended {
                self.sources.clear();
            }
        }
    }
}

/// Where one choice stands.
#[derive(Clone, Debug)]
struct ChoiceState {
    reader: CallReader,
    /// Whether its first chunk has been written.
    begun: bool,
    /// Characters that its tokens have.
    characters: usize,
    /// Tokens that have been generated.
    generated: usize,
}

impl ChoiceState {
    fn new(envelope: &Envelope, choice: u32, by_plugin: bool) -> Self {
        let reader = CallReader::new(&envelope.reading, &envelope.id, choice, by_plugin);
        Self { reader, begun: false, characters: 0, generated: 0 }
    }
}

/// Where one prompt's answer stands.
struct Prompt {
    id: RequestId,
    model: String,
    /// Tokens of the prompt.
    tokens: Arc<[TokenId]>,
    choices: Vec<ChoiceState>,
    done: Option<(Usage, MortiseWire)>,
}

impl Prompt {
    fn new(answer: &Observed, envelope: &Envelope) -> Self {
        let by_plugin = answer.prompt.is_empty();
        let choices =
            (0..envelope.n).map(|choice| ChoiceState::new(envelope, choice, by_plugin)).collect();
        let (id, model) = (answer.id.clone(), answer.model.clone());
        Self { id, model, tokens: Arc::clone(&answer.prompt), choices, done: None }
    }
}

/// Turns events into lines of data.
struct Writer {
    envelope: Envelope,
    prompts: Vec<Prompt>,
    queue: VecDeque<String>,
}

impl Writer {
    /// Takes an event, `None` where there are no more; whether the stream has ended.
    fn take(&mut self, event: Option<(usize, AnswerEvent)>) -> bool {
        match event {
            Some((prompt, AnswerEvent::Delta { choice, text, tokens, ids })) => {
                if choice < self.envelope.n {
                    self.role(prompt, choice);
                    self.delta((prompt, choice), text, tokens, ids);
                }
                false
            }
            Some((prompt, AnswerEvent::Finished { choice, reason })) => {
                if choice < self.envelope.n {
                    self.role(prompt, choice);
                    self.finished(prompt, choice, reason);
                }
                false
            }
            Some((prompt, AnswerEvent::Done(summary))) => {
                let usage = summary.usage;
                let of = &mut self.prompts[prompt];
                of.done = Some((usage, MortiseWire::new(&of.id, summary)));
                let all = self.prompts.iter().all(|prompt| prompt.done.is_some());
                if all {
                    self.last();
                }
                all
            }
            Some((_, AnswerEvent::Failed(error))) => self.failed(&error.into()),
            None => self.failed(&ApiError::internal(&"an answer ended without a summary")),
        }
    }

    fn failed(&mut self, error: &ApiError) -> bool {
        self.queue.push_back(error.body().to_string());
        self.queue.push_back("[DONE]".to_owned());
        true
    }

    /// The first chunk of a chat's choice names the role.
    fn role(&mut self, prompt: usize, choice: u32) {
        let state = &mut self.prompts[prompt].choices[choice as usize];
        if self.envelope.endpoint != Endpoint::Chat || std::mem::replace(&mut state.begun, true) {
            return;
        }
        let (role, content) = (Some("assistant"), Some(String::new()));
        let delta = Delta { role, content, ..Delta::default() };
        let first = ChatChunkChoice { delta, ..self.chat_choice(prompt, choice) };
        let object = self.object((prompt, choice), vec![first]);
        let ids = self.prompts[prompt].tokens.as_ref();
        let prompt_token_ids = self.envelope.shape.token_ids.then_some(ids);
        self.queue.push_back(line(&Object { prompt_token_ids, ..object }));
    }

    fn delta(
        &mut self,
        (prompt, choice): (usize, u32),
        text: String,
        tokens: Vec<TokenPiece>,
        ids: Vec<TokenId>,
    ) {
        let shape = self.envelope.shape;
        let state = &mut self.prompts[prompt].choices[choice as usize];
        state.generated += ids.len();
        let wanted = shape.logprobs && !tokens.is_empty();
        let token_ids = shape.token_ids.then_some(ids);
        match self.envelope.endpoint {
            Endpoint::Chat => {
                let held = !state.reader.is_plain();
                let spoken = state.reader.push(text);
                if held && spoken == Spoken::default() && !wanted && !shape.token_ids {
                    return;
                }
                let logprobs = wanted.then(|| {
                    let mut all = ChatLogprobs::default();
                    all.push(tokens);
                    all
                });
                let delta = delta_of(spoken);
                let of = self.chat_choice(prompt, choice);
                let next = ChatChunkChoice { delta, logprobs, token_ids, ..of };
                self.push((prompt, choice), next);
            }
            Endpoint::Completion => {
                let logprobs = wanted.then(|| {
                    let mut all = CompletionLogprobs::default();
                    all.push(tokens, &mut state.characters);
                    all
                });
                let is_first = !std::mem::replace(&mut state.begun, true);
                let ids = self.prompts[prompt].tokens.to_vec();
                let prompt_token_ids = (is_first && shape.token_ids).then_some(ids);
                let of = self.text_choice(prompt, choice);
                let next = CompletionChoice { text, logprobs, prompt_token_ids, token_ids, ..of };
                self.push((prompt, choice), next);
            }
        }
    }

    fn finished(&mut self, prompt: usize, choice: u32, reason: FinishReason) {
        match self.envelope.endpoint {
            Endpoint::Chat => {
                let state = &mut self.prompts[prompt].choices[choice as usize];
                let (rest, reason) = state.reader.finish(reason);
                if rest != Spoken::default() {
                    let of = self.chat_choice(prompt, choice);
                    self.push((prompt, choice), ChatChunkChoice { delta: delta_of(rest), ..of });
                }
                let of = self.chat_choice(prompt, choice);
                let last = ChatChunkChoice { finish_reason: Some(reason), ..of };
                self.push((prompt, choice), last);
            }
            Endpoint::Completion => {
                let finish_reason = Some(reason.as_str());
                let of = self.text_choice(prompt, choice);
                self.push((prompt, choice), CompletionChoice { finish_reason, ..of });
            }
        }
    }

    /// A chat's chunk that says nothing yet.
    fn chat_choice(&self, prompt: usize, choice: u32) -> ChatChunkChoice {
        let index = self.envelope.index(prompt, choice);
        let delta = Delta::default();
        ChatChunkChoice { index, delta, logprobs: None, finish_reason: None, token_ids: None }
    }

    /// A completion's chunk that says nothing yet.
    fn text_choice(&self, prompt: usize, choice: u32) -> CompletionChoice {
        CompletionChoice {
            index: self.envelope.index(prompt, choice),
            text: String::new(),
            logprobs: None,
            finish_reason: None,
            prompt_token_ids: None,
            token_ids: None,
        }
    }

    /// A chunk without choices for usage and credits, if asked for; then the end.
    fn last(&mut self) {
        let shape = self.envelope.shape;
        let ends = self.prompts.iter_mut().filter_map(|prompt| prompt.done.take());
        let (mut usage, mut mortise) = (Usage::default(), Vec::new());
        for (of_prompt, wire) in ends {
            usage = usage.plus(of_prompt);
            mortise.push(wire);
        }
        if shape.include_usage || shape.mortise {
            let mortise = if shape.mortise { MortiseField::new(mortise) } else { None };
            let usage = shape.include_usage.then(|| Some(usage.into()));
            let chunk = Object::<()> { usage, mortise, ..self.object((0, 0), Vec::new()) };
            let line = line(&chunk);
            self.queue.push_back(line);
        }
        self.queue.push_back("[DONE]".to_owned());
    }

    fn push<C: Serialize>(&mut self, of: (usize, u32), choice: C) {
        let line = line(&self.object(of, vec![choice]));
        self.queue.push_back(line);
    }

    fn object<C>(&self, (prompt, choice): (usize, u32), choices: Vec<C>) -> Object<'_, C> {
        let prompt = &self.prompts[prompt];
        let shape = self.envelope.shape;
        let generated = prompt.choices.get(choice as usize).map_or(0, |state| state.generated);
        let so_far = || WireUsage::so_far(prompt.tokens.len(), generated);
        Object {
            id: self.envelope.id.as_str(),
            object: match self.envelope.endpoint {
                Endpoint::Chat => "chat.completion.chunk",
                Endpoint::Completion => "text_completion",
            },
            created: self.envelope.created,
            model: &prompt.model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            prompt_token_ids: None,
            usage: shape.include_usage.then(|| shape.continuous_usage.then(so_far)),
            mortise: None,
        }
    }
}

/// A chunk without calls always has content, be it empty.
fn delta_of(spoken: Spoken) -> Delta {
    let silent = spoken.content.is_empty() && !spoken.calls.is_empty();
    let content = (!silent).then_some(spoken.content);
    let tool_calls = spoken.calls.into_iter().map(CallWire::part).collect();
    Delta { role: None, content, tool_calls }
}

fn line<C: Serialize>(object: &Object<'_, C>) -> String {
    serde_json::to_string(object).expect("the object has string keys and finite numbers")
}

#[cfg(test)]
pub(crate) mod tests;
