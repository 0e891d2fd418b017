//! `/v1/responses`, of which nothing is stored: the request as written, and the response object.

use request::{FinishReason, Message, Role, SamplingParams, ServingOptions, Usage};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokenization::Grammar;

use crate::http::error::ApiError;
use crate::http::wire::sampling::{MortiseOptions, is_asked, refuse_if, top_k};
use crate::http::wire::structured::TextFormat;

/// A request as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponsesBody {
    pub(crate) model: String,
    input: Input,
    instructions: Option<String>,
    pub(crate) max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    pub(crate) stream: Option<bool>,
    metadata: Option<Map<String, Value>>,
    text: Option<TextOptions>,
    tools: Option<Vec<IgnoredAny>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    truncation: Option<String>,
    previous_response_id: Option<String>,
    conversation: Option<Value>,
    prompt: Option<Value>,
    background: Option<bool>,
    reasoning: Option<Map<String, Value>>,
    include: Option<Vec<String>>,
    top_logprobs: Option<u32>,
    max_tool_calls: Option<u32>,
    user: Option<String>,
    // Beyond OpenAI's.
    top_k: Option<i64>,
    min_p: Option<f32>,
    pub(crate) seed: Option<i64>,
    ignore_eos: Option<bool>,
    cache_salt: Option<String>,
    priority: Option<i64>,
    pub(crate) mortise: Option<MortiseOptions>,
    // Accepted and without effect: nothing is stored whatever is said, and the rest describes the
    // caller, not the answer.
    #[serde(default, rename = "store")]
    _store: IgnoredAny,
    #[serde(default, rename = "service_tier")]
    _service_tier: IgnoredAny,
    #[serde(default, rename = "safety_identifier")]
    _safety_identifier: IgnoredAny,
    #[serde(default, rename = "prompt_cache_key")]
    _prompt_cache_key: IgnoredAny,
    #[serde(default, rename = "prompt_cache_retention")]
    _prompt_cache_retention: IgnoredAny,
    #[serde(default, rename = "stream_options")]
    _stream_options: IgnoredAny,
    #[serde(default, rename = "request_id")]
    _request_id: IgnoredAny,
}

/// Text of the user, or a conversation.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an array of input items")]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// One item as written. Only messages are read; the rest of others does not matter.
#[derive(Debug, Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an array of content parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextOptions {
    format: Option<TextFormat>,
    verbosity: Option<String>,
}

impl ResponsesBody {
    /// Refuses what would change the answer and is not there.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let is_set = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
        if self.previous_response_id.is_some() {
            let message = "responses are not stored here: send the conversation as `input`";
            let error = ApiError::invalid_param("previous_response_id", message);
            return Err(error.with_code("unsupported_parameter"));
        }
        refuse_if(is_set(self.conversation.as_ref()), "conversation")?;
        refuse_if(is_set(self.prompt.as_ref()), "prompt")?;
        refuse_if(self.background == Some(true), "background")?;
        refuse_if(is_asked(self.tools.as_ref()), "tools")?;
        let choice = self.tool_choice.as_ref().filter(|choice| !choice.is_null());
        let harmless = |choice: &Value| matches!(choice.as_str(), Some("none" | "auto"));
        refuse_if(choice.is_some_and(|choice| !harmless(choice)), "tool_choice")?;
        let truncation = self.truncation.as_deref().unwrap_or("disabled");
        refuse_if(truncation != "disabled", "truncation")?;
        let reasoning = self.reasoning.iter().flat_map(Map::values);
        refuse_if(reasoning.into_iter().any(|value| !value.is_null()), "reasoning")?;
        refuse_if(self.include.as_ref().is_some_and(|include| !include.is_empty()), "include")?;
        refuse_if(self.top_logprobs.unwrap_or(0) > 0, "top_logprobs")?;
        refuse_if(self.max_tool_calls.is_some(), "max_tool_calls")?;
        if let Some(text) = &self.text {
            refuse_if(text.verbosity.is_some(), "text.verbosity")?;
        }
        if self.max_output_tokens == Some(0) {
            let message = "max_output_tokens must be at least 1, got 0";
            return Err(ApiError::invalid_param("max_output_tokens", message));
        }
        Ok(())
    }

    /// The conversation: instructions first, as the system's.
    ///
    /// # Errors
    /// 400 naming the item that is no text message.
    pub(crate) fn messages(&mut self) -> Result<Vec<Message>, ApiError> {
        let input = std::mem::replace(&mut self.input, Input::Items(Vec::new()));
        let instructions = self.instructions.iter();
        let mut messages: Vec<_> =
            instructions.map(|text| Message::new(Role::System, text.clone())).collect();
        match input {
            Input::Text(text) => messages.push(Message::new(Role::User, text)),
            Input::Items(items) if items.is_empty() => {
                let message = "input must have at least one item";
                return Err(ApiError::invalid_param("input", message));
            }
            Input::Items(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    messages.push(item.into_message(&format!("input[{index}]"))?);
                }
            }
        }
        Ok(messages)
    }

    /// The sampling parameters; bounds are the pipeline's to check.
    ///
    /// # Errors
    /// 400 for numbers that can't be.
    pub(crate) fn sampling(&self) -> Result<SamplingParams, ApiError> {
        let default = SamplingParams::default();
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: top_k(self.top_k)?,
            min_p: self.min_p.unwrap_or(default.min_p),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..default
        })
    }

    /// What the answer must be.
    ///
    /// # Errors
    /// 400 for what bounds nothing.
    pub(crate) fn grammar(&mut self) -> Result<Option<Grammar>, ApiError> {
        let format = self.text.as_mut().and_then(|text| text.format.take());
        Ok(format.map(TextFormat::grammar).transpose()?.flatten())
    }

    /// Place in the queue and share of the cache.
    pub(crate) fn serving(&mut self) -> ServingOptions {
        let cache_salt = self.cache_salt.take();
        ServingOptions { priority: self.priority.unwrap_or(0), cache_salt }
    }

    /// The response object before there is an answer.
    pub(crate) fn blank(&self, id: &str, created: u64) -> Value {
        let default = SamplingParams::default();
        json!({
            "id": id,
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": null,
            "model": self.model,
            "output": [],
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "temperature": self.temperature.unwrap_or(default.temperature),
            "text": { "format": self.text.as_ref().and_then(|text| text.format.as_ref()).map_or_else(
                || json!({ "type": "text" }),
                TextFormat::echo,
            ) },
            "tool_choice": "auto",
            "tools": [],
            "top_p": self.top_p.unwrap_or(default.top_p),
            "truncation": "disabled",
            "usage": null,
            "user": self.user,
            "metadata": self.metadata.clone().unwrap_or_default(),
        })
    }
}

impl Item {
    fn into_message(self, at: &str) -> Result<Message, ApiError> {
        let kind = self.kind.as_deref().unwrap_or("message");
        if kind != "message" {
            let message = format!("{at} is of type `{kind}`; only messages are read");
            let error = ApiError::invalid_param(format!("{at}.type"), message);
            return Err(error.with_code("unsupported_parameter"));
        }
        let missing = |field: &str| {
            let param = format!("{at}.{field}");
            ApiError::invalid_param(&param, format!("{param} is missing"))
        };
        let role = self.role.filter(|role| !role.is_empty()).ok_or_else(|| missing("role"))?;
        let text = match self.content.ok_or_else(|| missing("content"))? {
            Content::Text(text) => text,
            Content::Parts(parts) => join(parts, at)?,
        };
        Ok(Message::new(Role::from(role.as_str()), text))
    }
}

fn join(parts: Vec<Part>, at: &str) -> Result<String, ApiError> {
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        match (part.kind.as_str(), part.text) {
            ("input_text" | "output_text" | "text", Some(piece)) => text.push_str(&piece),
            (kind, _) => {
                let at = format!("{at}.content[{index}]");
                let message = format!("{at} is of type `{kind}`; this model reads text");
                let error = ApiError::invalid_param(format!("{at}.type"), message);
                return Err(error.with_code("unsupported_parameter"));
            }
        }
    }
    Ok(text)
}

/// The one message of a response.
pub(crate) fn message(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(part).into_iter().collect();
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
}

/// A part of text.
pub(crate) fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// Token counts as this endpoint calls them.
pub(crate) fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}

/// Why a response is incomplete; `None` if it is not.
pub(crate) fn incomplete(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Stop => None,
        FinishReason::Length => Some("max_output_tokens"),
        FinishReason::ContentFilter | FinishReason::Cancelled => Some("content_filter"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn body(rest: &str) -> Result<ResponsesBody, ApiError> {
        parse(format!("{{\"model\": \"m\", \"input\": \"hi\"{rest}}}").as_bytes())
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let check = |rest: &str, expect: Option<&str>| {
            let found = body(rest).and_then(|body| body.check()).err();
            assert_eq!(found.and_then(|error| error.param).as_deref(), expect, "{rest}");
        };
        check("", None);
        check(", \"store\": true, \"user\": \"u\", \"metadata\": {\"a\": \"b\"}", None);
        check(
            ", \"tools\": [], \"tool_choice\": \"auto\", \"reasoning\": {\"effort\": null}",
            None,
        );
        check(", \"text\": {\"format\": {\"type\": \"text\"}}, \"truncation\": \"disabled\"", None);
        check(", \"previous_response_id\": \"resp_1\"", Some("previous_response_id"));
        check(", \"conversation\": \"conv_1\"", Some("conversation"));
        check(", \"background\": true", Some("background"));
        check(", \"tools\": [{\"type\": \"web_search\"}]", Some("tools"));
        check(", \"tool_choice\": \"required\"", Some("tool_choice"));
        check(", \"truncation\": \"auto\"", Some("truncation"));
        check(", \"reasoning\": {\"effort\": \"low\"}", Some("reasoning"));
        check(", \"include\": [\"file_search_call.results\"]", Some("include"));
        check(", \"text\": {\"verbosity\": \"low\"}", Some("text.verbosity"));
        check(", \"max_output_tokens\": 0", Some("max_output_tokens"));
        check(", \"max_tokens\": 5", Some("max_tokens"));
    }

    #[test]
    fn inputs_become_messages() {
        let messages = |input: &str| {
            let text =
                format!("{{\"model\": \"m\", \"input\": {input}, \"instructions\": \"be\"}}");
            let body = parse::<ResponsesBody>(text.as_bytes());
            body.and_then(|mut body| body.messages())
        };
        let check = |input: &str, expect: &[(&str, &str)]| {
            let found = messages(input).expect(input);
            let found: Vec<_> =
                found.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
            assert_eq!(found, expect, "{input}");
        };
        check("\"hi\"", &[("system", "be"), ("user", "hi")]);
        let items = "[{\"role\": \"user\", \"content\": \"a\"}, \
                     {\"type\": \"message\", \"role\": \"assistant\", \"id\": \"msg\", \"content\": \
                     [{\"type\": \"output_text\", \"text\": \"b\", \"annotations\": []}]}, \
                     {\"role\": \"user\", \"content\": [{\"type\": \"input_text\", \"text\": \"c\"}]}]";
        check(items, &[("system", "be"), ("user", "a"), ("assistant", "b"), ("user", "c")]);
        for (input, param) in [
            ("[]", "input"),
            ("4", "input"),
            ("[{\"type\": \"function_call\", \"name\": \"f\"}]", "input[0].type"),
            ("[{\"content\": \"a\"}]", "input[0].role"),
            ("[{\"role\": \"user\"}]", "input[0].content"),
            (
                "[{\"role\": \"user\", \"content\": [{\"type\": \"input_image\"}]}]",
                "input[0].content[0].type",
            ),
        ] {
            let error = messages(input).expect_err(input);
            assert_eq!(error.param.as_deref(), Some(param), "{error:?}");
        }
    }
}
