//! `/v1/responses`, of which nothing is stored: the request as written, and the response object.

use request::{FinishReason, Message, Role, SamplingParams, ServingOptions, ToolCall, Usage};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokenization::{Grammar, ToolCallFormat};

use crate::http::error::ApiError;
use crate::http::wire::content::Content;
use crate::http::wire::sampling::{MortiseOptions, refuse_if, top_k};
use crate::http::wire::structured::TextFormat;
use crate::http::wire::tools::{FlatTool, ToolUse, arguments_of};

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
    tools: Option<Vec<Value>>,
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

/// One item as written: a message, a call or its result. What else it says does not matter.
#[derive(Debug, Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<Content>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<Content>,
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
                    item.add_to(&mut messages, &format!("input[{index}]"))?;
                }
            }
        }
        Ok(messages)
    }

    /// The tools, and what they mean for the answer.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn tools(&self, format: Option<ToolCallFormat>) -> Result<ToolUse, ApiError> {
        let mut tools: Vec<FlatTool> = Vec::new();
        for (index, tool) in self.tools.iter().flatten().enumerate() {
            let at = format!("tools[{index}]");
            let tool = serde_json::from_value(tool.clone());
            tools.push(
                tool.map_err(|error| ApiError::invalid_param(&at, format!("{at}: {error}")))?,
            );
        }
        let parallel = self.parallel_tool_calls.unwrap_or(true);
        ToolUse::new(tools, self.tool_choice.as_ref(), parallel, format)
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
            "tool_choice": self.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            "tools": self.tools.clone().unwrap_or_default(),
            "top_p": self.top_p.unwrap_or(default.top_p),
            "truncation": "disabled",
            "usage": null,
            "user": self.user,
            "metadata": self.metadata.clone().unwrap_or_default(),
        })
    }
}

impl Item {
    /// Adds the item to the conversation. Calls are part of the turn that they end.
    fn add_to(self, messages: &mut Vec<Message>, at: &str) -> Result<(), ApiError> {
        let missing = |field: &str| {
            let param = format!("{at}.{field}");
            ApiError::invalid_param(&param, format!("{param} is missing"))
        };
        match self.kind.as_deref().unwrap_or("message") {
            "message" => {
                let role = self.role.filter(|role| !role.is_empty());
                let role = role.ok_or_else(|| missing("role"))?;
                let content = self.content.ok_or_else(|| missing("content"))?;
                let text = content.into_text(&format!("{at}.content"))?;
                messages.push(Message::new(Role::from(role.as_str()), text));
            }
            "function_call" => {
                let (id, name) = (self.call_id, self.name.ok_or_else(|| missing("name"))?);
                let id = id.ok_or_else(|| missing("call_id"))?;
                let at = format!("{at}.arguments");
                let arguments = arguments_of(self.arguments.as_deref(), &at)?;
                if messages.last().is_none_or(|last| last.role != Role::Assistant) {
                    messages.push(Message::new(Role::Assistant, ""));
                }
                let turn = messages.last_mut().expect("there is one now");
                turn.tool_calls.push(ToolCall { id, name, arguments });
            }
            "function_call_output" => {
                let output = self.output.ok_or_else(|| missing("output"))?;
                let text = output.into_text(&format!("{at}.output"))?;
                let id = self.call_id.ok_or_else(|| missing("call_id"))?;
                let of = |message: &Message| {
                    message
                        .tool_calls
                        .iter()
                        .find(|call| call.id == id)
                        .map(|call| call.name.clone())
                };
                let name = messages.iter().rev().find_map(of);
                let result = Message::new(Role::Tool, text);
                messages.push(Message { name, tool_call_id: Some(id), ..result });
            }
            kind => {
                let message = format!("{at} is of type `{kind}`; messages and calls are read");
                let error = ApiError::invalid_param(format!("{at}.type"), message);
                return Err(error.with_code("unsupported_parameter"));
            }
        }
        Ok(())
    }
}

/// The one message of a response.
pub(crate) fn message(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(part).into_iter().collect();
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
}

/// A call of a function.
pub(crate) fn function_call((id, status): (&str, &str), call: (&str, &str, &str)) -> Value {
    let (call_id, name, arguments) = call;
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
        "arguments": arguments,
    })
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
            ("[{\"type\": \"reasoning\"}]", "input[0].type"),
            ("[{\"type\": \"function_call\", \"call_id\": \"c\"}]", "input[0].name"),
            ("[{\"type\": \"function_call\", \"name\": \"f\"}]", "input[0].call_id"),
            (
                "[{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"arguments\": \"4\"}]",
                "input[0].arguments",
            ),
            ("[{\"type\": \"function_call_output\", \"call_id\": \"c\"}]", "input[0].output"),
            ("[{\"type\": \"function_call_output\", \"output\": \"x\"}]", "input[0].call_id"),
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

    #[test]
    fn calls_end_the_turn_they_stand_behind() {
        let input = json!([
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        ]);
        let text = json!({"model": "m", "input": input}).to_string();
        let messages = parse::<ResponsesBody>(text.as_bytes()).and_then(|mut body| body.messages());
        let messages = messages.expect("a conversation");
        let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool"]);
        let names: Vec<&str> =
            messages[1].tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!((messages[1].content.as_str(), names), ("I look.", vec!["f", "g"]));
        let result = &messages[3];
        assert_eq!((result.content.as_str(), result.name.as_deref()), ("two", Some("g")));
        assert_eq!(result.tool_call_id.as_deref(), Some("c2"));
    }

    #[test]
    fn tools_are_flat() {
        let tools = |tool: &str| {
            let body = body(&format!(", \"tools\": [{tool}], \"tool_choice\": \"required\""))
                .expect("a body");
            body.tools(None)
        };
        let used = tools(
            "{\"type\": \"function\", \"name\": \"f\", \"strict\": true, \"parameters\": {}}",
        );
        let used = used.expect("a function");
        assert_eq!(used.offered[0]["function"]["name"], "f");
        assert!(used.grammar.is_some());
        for (tool, param) in [
            ("{\"type\": \"web_search\"}", "tools[0].type"),
            ("{\"type\": \"function\"}", "tools[0].name"),
            ("{\"type\": \"function\", \"name\": 4}", "tools[0]"),
        ] {
            assert_eq!(tools(tool).expect_err(tool).param.as_deref(), Some(param));
        }
    }
}
