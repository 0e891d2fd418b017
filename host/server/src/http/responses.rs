//! An answer of the pipeline as `/v1/responses` has it: one object, or typed events that end in it.
//! Stores nothing: a response can't be asked for again, only its receipt can.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use pipeline::{Answer, AnswerEvent, Summary};
use request::{FinishReason, RequestId};
use serde_json::{Value, json};

use super::answer::gather;
use super::error::ApiError;
use super::stream::keep_alive;
use super::wire::mortise::MortiseWire;
use super::wire::responses::{incomplete, message, part, usage};

/// What a response is written from.
pub(crate) struct ResponseWriter {
    id: RequestId,
    item_id: String,
    /// The object as it stands.
    response: Value,
    /// Whether the last object has the extension.
    mortise: bool,
    text: String,
    reason: FinishReason,
    begun: bool,
    sequence_number: u64,
    queue: VecDeque<(&'static str, Value)>,
}

impl ResponseWriter {
    /// A response of which nothing is known but its `blank` object.
    pub(crate) fn new(id: RequestId, blank: Value, model: &str, mortise: bool) -> Self {
        let mut response = blank;
        response["model"] = model.into();
        let item_id = format!("msg_{}", id.as_str());
        Self {
            id,
            item_id,
            response,
            mortise,
            text: String::new(),
            reason: FinishReason::Stop,
            begun: false,
            sequence_number: 0,
            queue: VecDeque::new(),
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// The answer's failure.
    pub(crate) async fn whole(mut self, answer: Answer) -> Result<Value, ApiError> {
        let end = gather(answer, 1).await?;
        if let Some(choice) = end.choices.into_iter().next() {
            self.text = choice.text;
            self.reason = choice.reason.unwrap_or(FinishReason::Stop);
        }
        self.mortise = true;
        self.complete(end.summary);
        Ok(self.response)
    }

    /// Writes the answer as it comes. Dropping the response drops the answer, which cancels it.
    pub(crate) fn events(self, answer: Answer) -> Response {
        let body =
            stream::unfold((self, answer, false), |(mut writer, mut answer, ended)| async move {
                let mut ended = ended;
                loop {
                    if let Some((name, data)) = writer.queue.pop_front() {
                        let event = Event::default().event(name).data(data.to_string());
                        return Some((Ok::<_, Infallible>(event), (writer, answer, ended)));
                    }
                    if ended {
                        return None;
                    }
                    let event = answer.next().await;
                    ended = writer.take(event);
                }
            });
        Sse::new(body).keep_alive(keep_alive()).into_response()
    }

    /// Takes an event, `None` where there are no more; whether the stream has ended.
    fn take(&mut self, event: Option<AnswerEvent>) -> bool {
        self.begin();
        match event {
            // Only the first choice was asked for.
            Some(AnswerEvent::Delta { choice: 0, text, .. }) => {
                self.delta(&text);
                false
            }
            Some(AnswerEvent::Finished { choice: 0, reason }) => {
                self.reason = reason;
                false
            }
            Some(AnswerEvent::Delta { .. } | AnswerEvent::Finished { .. }) => false,
            Some(AnswerEvent::Done(summary)) => {
                self.end(summary);
                true
            }
            Some(AnswerEvent::Failed(error)) => self.failed(&error.into()),
            None => self.failed(&ApiError::internal(&"an answer ended without a summary")),
        }
    }

    /// The events before the first text.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let response = self.response.clone();
        self.push("response.created", json!({ "response": response.clone() }));
        self.push("response.in_progress", json!({ "response": response }));
        let item = message(&self.item_id, "in_progress", None);
        self.push("response.output_item.added", json!({ "output_index": 0, "item": item }));
        let data = self.of_part(json!({ "part": part("") }));
        self.push("response.content_part.added", data);
    }

    fn delta(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let data = self.of_part(json!({ "delta": text, "logprobs": [] }));
        self.push("response.output_text.delta", data);
    }

    /// The events behind the last text, and the whole object.
    fn end(&mut self, summary: Summary) {
        let data = self.of_part(json!({ "text": self.text, "logprobs": [] }));
        self.push("response.output_text.done", data);
        let data = self.of_part(json!({ "part": part(&self.text) }));
        self.push("response.content_part.done", data);
        let name = self.complete(summary);
        let item = self.response["output"][0].clone();
        self.push("response.output_item.done", json!({ "output_index": 0, "item": item }));
        let response = self.response.clone();
        self.push(name, json!({ "response": response }));
    }

    /// Fills in the object; returns the name of the event that carries it.
    fn complete(&mut self, summary: Summary) -> &'static str {
        let (name, status) = match incomplete(self.reason) {
            None => ("response.completed", "completed"),
            Some(reason) => {
                self.response["incomplete_details"] = json!({ "reason": reason });
                ("response.incomplete", "incomplete")
            }
        };
        self.response["status"] = status.into();
        self.response["output"] = json!([message(&self.item_id, status, Some(&self.text))]);
        self.response["usage"] = usage(summary.usage);
        if self.mortise {
            self.response["mortise"] = json!(MortiseWire::new(&self.id, summary));
        }
        name
    }

    fn failed(&mut self, error: &ApiError) -> bool {
        self.response["status"] = "failed".into();
        self.response["error"] = json!({ "code": "server_error", "message": error.message });
        let response = self.response.clone();
        self.push("response.failed", json!({ "response": response }));
        true
    }

    /// Data of an event about the one part of the one message.
    fn of_part(&self, rest: Value) -> Value {
        let mut data = json!({ "item_id": self.item_id, "output_index": 0, "content_index": 0 });
        merge(&mut data, rest);
        data
    }

    fn push(&mut self, name: &'static str, rest: Value) {
        let mut data = json!({ "type": name, "sequence_number": self.sequence_number });
        merge(&mut data, rest);
        self.sequence_number += 1;
        self.queue.push_back((name, data));
    }
}

/// Adds the fields of one object to another.
fn merge(to: &mut Value, from: Value) {
    if let (Value::Object(to), Value::Object(from)) = (to, from) {
        to.extend(from);
    }
}

#[cfg(test)]
mod tests;
