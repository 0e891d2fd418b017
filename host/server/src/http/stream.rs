//! Answers of the pipeline to server-sent events: chunks as they come, one last chunk with usage and
//! credits where they were asked for, `[DONE]`. The last chunk is sent once the receipt is on disk.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, SelectAll, Stream, StreamExt};
use pipeline::{Answer, AnswerEvent, TokenPiece};
use request::{RequestId, Usage};
use serde::Serialize;

use super::answer::{Endpoint, Envelope};
use super::error::ApiError;
use super::wire::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::wire::mortise::MortiseWire;
use super::wire::object::{
    ChatChunkChoice, CompletionChoice, Delta, MortiseField, Object, finish_reason,
};

/// Proxies close connections that are silent for a minute; a comment now and then keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Writes answers as they come. Dropping the response drops the answers, which cancels them.
pub(crate) fn events(answers: Vec<Answer>, envelope: Envelope) -> Response {
    let prompts = answers.iter().map(|answer| Prompt::new(answer, envelope.n)).collect();
    let sources = answers.into_iter().enumerate().map(|(prompt, answer)| {
        let next = async |mut answer: Answer| answer.next().await.map(|event| (event, answer));
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
    Sse::new(body).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
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

/// Where one prompt's answer stands.
struct Prompt {
    id: RequestId,
    model: String,
    /// Per choice: whether its role has been sent, and the characters its tokens have.
    choices: Vec<(bool, usize)>,
    done: Option<(Usage, MortiseWire)>,
}

impl Prompt {
    fn new(answer: &Answer, n: u32) -> Self {
        let choices = vec![(false, 0); n as usize];
        Self { id: answer.id.clone(), model: answer.model.clone(), choices, done: None }
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
            Some((prompt, AnswerEvent::Delta { choice, text, tokens })) => {
                self.role(prompt, choice);
                self.delta(prompt, choice, text, tokens);
                false
            }
            Some((prompt, AnswerEvent::Finished { choice, reason })) => {
                self.role(prompt, choice);
                self.finished(prompt, choice, finish_reason(reason));
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
        let sent = self.prompts[prompt].choices.get_mut(choice as usize).map(|state| &mut state.0);
        if self.envelope.endpoint != Endpoint::Chat
            || sent.is_none_or(|sent| std::mem::replace(sent, true))
        {
            return;
        }
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        let index = self.envelope.index(prompt, choice);
        let choice = ChatChunkChoice { index, delta, logprobs: None, finish_reason: None };
        self.push(prompt, vec![choice]);
    }

    fn delta(&mut self, prompt: usize, choice: u32, text: String, tokens: Vec<TokenPiece>) {
        let index = self.envelope.index(prompt, choice);
        let wanted = self.envelope.shape.logprobs && !tokens.is_empty();
        match self.envelope.endpoint {
            Endpoint::Chat => {
                let logprobs = wanted.then(|| {
                    let mut all = ChatLogprobs::default();
                    all.push(tokens);
                    all
                });
                let delta = Delta { role: None, content: Some(text) };
                let choice = ChatChunkChoice { index, delta, logprobs, finish_reason: None };
                self.push(prompt, vec![choice]);
            }
            Endpoint::Completion => {
                let mut none = (false, 0);
                let state = self.prompts[prompt].choices.get_mut(choice as usize);
                let (_, offset) = state.unwrap_or(&mut none);
                let logprobs = wanted.then(|| {
                    let mut all = CompletionLogprobs::default();
                    all.push(tokens, offset);
                    all
                });
                let choice = CompletionChoice { index, text, logprobs, finish_reason: None };
                self.push(prompt, vec![choice]);
            }
        }
    }

    fn finished(&mut self, prompt: usize, choice: u32, reason: &'static str) {
        let index = self.envelope.index(prompt, choice);
        let finish_reason = Some(reason);
        match self.envelope.endpoint {
            Endpoint::Chat => {
                let delta = Delta::default();
                let choice = ChatChunkChoice { index, delta, logprobs: None, finish_reason };
                self.push(prompt, vec![choice]);
            }
            Endpoint::Completion => {
                let text = String::new();
                let choice = CompletionChoice { index, text, logprobs: None, finish_reason };
                self.push(prompt, vec![choice]);
            }
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
            let chunk = Object::<()> { usage, mortise, ..self.object(0, Vec::new()) };
            let line = line(&chunk);
            self.queue.push_back(line);
        }
        self.queue.push_back("[DONE]".to_owned());
    }

    fn push<C: Serialize>(&mut self, prompt: usize, choices: Vec<C>) {
        let line = line(&self.object(prompt, choices));
        self.queue.push_back(line);
    }

    fn object<C>(&self, prompt: usize, choices: Vec<C>) -> Object<'_, C> {
        Object {
            id: self.envelope.id.as_str(),
            object: match self.envelope.endpoint {
                Endpoint::Chat => "chat.completion.chunk",
                Endpoint::Completion => "text_completion",
            },
            created: self.envelope.created,
            model: &self.prompts[prompt].model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            usage: self.envelope.shape.include_usage.then_some(None),
            mortise: None,
        }
    }
}

fn line<C: Serialize>(object: &Object<'_, C>) -> String {
    serde_json::to_string(object).expect("the object has string keys and finite numbers")
}

#[cfg(test)]
mod tests;
