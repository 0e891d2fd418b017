//! An answer of the pipeline as `/v1/responses` has it: one object, or typed events that end in it.
//! Stores nothing: a response can't be asked for again, only its receipt can.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use pipeline::{AnswerEvent, Summary};
use request::{FinishReason, RequestId};
use serde_json::{Value, json};

use super::answer::gather;
use super::calls::{CallPart, CallReader, Spoken};
use super::error::ApiError;
use super::observed::Observed;
use super::stream::keep_alive;
use super::wire::mortise::MortiseWire;
use super::wire::responses::{function_call, incomplete, message, part, usage};

/// What a response is written from.
pub(crate) struct ResponseWriter {
    id: RequestId,
    /// The object as it stands.
    response: Value,
    /// Whether the last object has the extension.
    mortise: bool,
    reader: CallReader,
    reason: FinishReason,
    begun: bool,
    /// The item that is being written.
    open: Option<Item>,
    /// Items that are complete.
    output: Vec<Value>,
    sequence_number: u64,
    queue: VecDeque<(&'static str, Value)>,
}

/// An item of the output while it grows.
enum Item {
    Message { id: String, text: String },
    Call { id: String, call_id: String, name: String, arguments: String },
}

impl Item {
    /// The item on the wire, with what there is of it.
    fn wire(&self, status: &str) -> Value {
        match self {
            Self::Message { id, text } => message(id, status, Some(text)),
            Self::Call { id, call_id, name, arguments } => {
                function_call((id, status), (call_id, name, arguments))
            }
        }
    }
}

impl ResponseWriter {
    /// A response of which nothing is known but its `blank` object.
    pub(crate) fn new(id: RequestId, blank: Value, reader: CallReader, mortise: bool) -> Self {
        Self {
            id,
            response: blank,
            mortise,
            reader,
            reason: FinishReason::Stop,
            begun: false,
            open: None,
            output: Vec::new(),
            sequence_number: 0,
            queue: VecDeque::new(),
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// The answer's failure.
    pub(crate) async fn whole(mut self, answer: Observed) -> Result<Value, ApiError> {
        let end = gather(answer, 1).await?;
        self.begin();
        if let Some(choice) = end.choices.into_iter().next() {
            self.delta(choice.text);
            self.reason = choice.reason.unwrap_or(FinishReason::Stop);
        }
        self.mortise = true;
        self.end(end.summary);
        Ok(self.response)
    }

    /// Writes the answer as it comes. Dropping the response drops the answer, which cancels it.
    pub(crate) fn events(self, answer: Observed) -> Response {
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
                self.delta(text);
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
        // A response that may be nothing but calls has no message before there is text.
        if self.reader.is_plain() {
            self.open_message();
        }
    }

    fn delta(&mut self, text: String) {
        let spoken = self.reader.push(text);
        self.say(spoken);
    }

    fn say(&mut self, spoken: Spoken) {
        if !spoken.content.is_empty() {
            if !matches!(self.open, Some(Item::Message { .. })) {
                self.open_message();
            }
            let data = self.of_part(json!({ "delta": spoken.content, "logprobs": [] }));
            self.push("response.output_text.delta", data);
            if let Some(Item::Message { text, .. }) = &mut self.open {
                text.push_str(&spoken.content);
            }
        }
        for CallPart { begun, arguments: more, .. } in spoken.calls {
            if let Some((call_id, name)) = begun {
                self.close("completed");
                let id = format!("fc_{call_id}");
                self.open(Item::Call { id, call_id, name, arguments: String::new() });
            }
            if let Some(Item::Call { arguments, .. }) = &mut self.open
                && !more.is_empty()
            {
                arguments.push_str(&more);
                let data = self.of_item(json!({ "delta": more }));
                self.push("response.function_call_arguments.delta", data);
            }
        }
    }

    fn open_message(&mut self) {
        self.close("completed");
        let nth = self.output.len();
        let id =
            if nth == 0 { format!("msg_{}", self.id) } else { format!("msg_{}_{nth}", self.id) };
        self.open(Item::Message { id, text: String::new() });
        let data = self.of_part(json!({ "part": part("") }));
        self.push("response.content_part.added", data);
    }

    fn open(&mut self, item: Item) {
        let wire = match &item {
            Item::Message { id, .. } => message(id, "in_progress", None),
            call => call.wire("in_progress"),
        };
        self.open = Some(item);
        let data = json!({ "output_index": self.output.len(), "item": wire });
        self.push("response.output_item.added", data);
    }

    /// The events behind the last of an item.
    fn close(&mut self, status: &str) {
        let Some(item) = self.open.take() else { return };
        let done = item.wire(status);
        self.open = Some(item);
        match &self.open {
            Some(Item::Message { text, .. }) => {
                let (all, part) = (json!({ "text": text, "logprobs": [] }), part(text));
                self.push("response.output_text.done", self.of_part(all));
                self.push("response.content_part.done", self.of_part(json!({ "part": part })));
            }
            Some(Item::Call { name, arguments, .. }) => {
                let all = json!({ "name": name, "arguments": arguments });
                self.push("response.function_call_arguments.done", self.of_item(all));
            }
            None => {}
        }
        let data = json!({ "output_index": self.output.len(), "item": done });
        self.push("response.output_item.done", data);
        self.open = None;
        self.output.push(done);
    }

    /// The events behind the last text, and the whole object.
    fn end(&mut self, summary: Summary) {
        let (rest, _) = self.reader.finish(self.reason);
        self.say(rest);
        if self.open.is_none() && self.output.is_empty() {
            self.open_message();
        }
        let (name, status) = match incomplete(self.reason) {
            None => ("response.completed", "completed"),
            Some(reason) => {
                self.response["incomplete_details"] = json!({ "reason": reason });
                ("response.incomplete", "incomplete")
            }
        };
        self.close(status);
        self.response["status"] = status.into();
        self.response["output"] = std::mem::take(&mut self.output).into();
        self.response["usage"] = usage(summary.usage);
        if self.mortise {
            self.response["mortise"] = json!(MortiseWire::new(&self.id, summary));
        }
        let response = self.response.clone();
        self.push(name, json!({ "response": response }));
    }

    fn failed(&mut self, error: &ApiError) -> bool {
        self.response["status"] = "failed".into();
        self.response["error"] = json!({ "code": "server_error", "message": error.message });
        let response = self.response.clone();
        self.push("response.failed", json!({ "response": response }));
        true
    }

    /// Data of an event about the item that is open.
    fn of_item(&self, rest: Value) -> Value {
        let id = match &self.open {
            Some(Item::Message { id, .. } | Item::Call { id, .. }) => id.as_str(),
            None => "",
        };
        let mut data = json!({ "item_id": id, "output_index": self.output.len() });
        merge(&mut data, rest);
        data
    }

    /// Data of an event about the one part of the message that is open.
    fn of_part(&self, rest: Value) -> Value {
        let mut data = self.of_item(json!({ "content_index": 0 }));
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
