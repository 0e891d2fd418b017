//! `/v1/chat/completions`.

use request::sampling::LOGPROBS_MAX;
use request::{Message, Role};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokenization::ToolCallFormat;

use crate::http::error::ApiError;
use crate::http::wire::content::Content;
use crate::http::wire::sampling::{is_asked, refuse_if, request_body};
use crate::http::wire::tools::{ChatTool, ToolUse, WireCall};

request_body!(
    /// A chat request as written.
    ChatBody {
        messages: Vec<WireMessage>,
        max_completion_tokens: Option<u32>,
        logprobs: Option<bool>,
        top_logprobs: Option<u32>,
        tools: Option<Vec<ChatTool>>,
        tool_choice: Option<Value>,
        functions: Option<Vec<IgnoredAny>>,
        function_call: Option<Value>,
        parallel_tool_calls: Option<bool>,
        modalities: Option<Vec<String>>,
        audio: Option<Value>,
        prediction: Option<Value>,
        reasoning_effort: Option<Value>,
        web_search_options: Option<Value>,
        verbosity: Option<Value>,
        chat_template_kwargs: Option<Map<String, Value>>,
    }
);

/// One message as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireMessage {
    role: String,
    content: Option<Content>,
    name: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
    function_call: Option<Value>,
    audio: Option<Value>,
    refusal: Option<String>,
    tool_call_id: Option<String>,
}

impl ChatBody {
    /// Refuses what would change the answer and is not there.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let is_set = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
        let called = |choice: Option<&Value>| {
            choice.is_some_and(|choice| !matches!(choice.as_str(), Some("none" | "auto")))
        };
        refuse_if(is_asked(self.functions.as_ref()), "functions")?;
        refuse_if(called(self.function_call.as_ref()), "function_call")?;
        let modalities = self.modalities.as_deref().unwrap_or_default();
        refuse_if(modalities.iter().any(|modality| modality != "text"), "modalities")?;
        refuse_if(is_set(self.audio.as_ref()), "audio")?;
        refuse_if(is_set(self.prediction.as_ref()), "prediction")?;
        refuse_if(is_set(self.reasoning_effort.as_ref()), "reasoning_effort")?;
        refuse_if(is_set(self.web_search_options.as_ref()), "web_search_options")?;
        refuse_if(is_set(self.verbosity.as_ref()), "verbosity")?;
        Ok(())
    }

    /// The tools, and what they mean for the answer.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn tools(&mut self, format: Option<ToolCallFormat>) -> Result<ToolUse, ApiError> {
        let tools = self.tools.take().unwrap_or_default();
        let parallel = self.parallel_tool_calls.unwrap_or(true);
        ToolUse::new(tools, self.tool_choice.as_ref(), parallel, format)
    }

    /// Alternatives per token, where log probabilities are wanted.
    ///
    /// # Errors
    /// 400 for alternatives without log probabilities.
    pub(crate) fn logprobs(&self) -> Result<Option<u32>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, Some(top)) if top > LOGPROBS_MAX => {
                let message = format!("top_logprobs must be at most {LOGPROBS_MAX}, got {top}");
                Err(ApiError::invalid_param("top_logprobs", message))
            }
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => {
                let message = "top_logprobs needs `logprobs: true`";
                Err(ApiError::invalid_param("top_logprobs", message))
            }
        }
    }

    /// Most tokens to generate; the old and the new name mean the same.
    ///
    /// # Errors
    /// 400 if they differ.
    pub(crate) fn tokens_max(&self, old: Option<u32>) -> Result<Option<u32>, ApiError> {
        match (old, self.max_completion_tokens) {
            (Some(old), Some(new)) if old != new => {
                let message = format!("max_tokens is {old} and max_completion_tokens is {new}");
                Err(ApiError::invalid_param("max_tokens", message))
            }
            (old, new) => Ok(new.or(old)),
        }
    }

    /// The conversation.
    ///
    /// # Errors
    /// 400 naming the message, for content that is not text.
    pub(crate) fn messages(&mut self) -> Result<Vec<Message>, ApiError> {
        if self.messages.is_empty() {
            let message = "messages must have at least one message";
            return Err(ApiError::invalid_param("messages", message));
        }
        let messages = std::mem::take(&mut self.messages).into_iter().enumerate();
        messages.map(|(index, message)| message.into_message(index)).collect()
    }
}

impl WireMessage {
    pub(crate) fn into_message(self, index: usize) -> Result<Message, ApiError> {
        let at = |field: &str| format!("messages[{index}].{field}");
        refuse_if(self.function_call.is_some(), &at("function_call"))?;
        refuse_if(self.audio.is_some(), &at("audio"))?;
        refuse_if(self.refusal.is_some(), &at("refusal"))?;
        if self.role.is_empty() {
            return Err(ApiError::invalid_param(at("role"), "role must not be empty"));
        }
        let calls = self.tool_calls.unwrap_or_default().into_iter().enumerate();
        let call =
            |(call, wire): (usize, WireCall)| wire.into_call(&at(&format!("tool_calls[{call}]")));
        let tool_calls = calls.map(call).collect::<Result<Vec<_>, _>>()?;
        let content = match self.content {
            Some(content) => content.into_text(&at("content"))?,
            // Who calls need not speak.
            None if !tool_calls.is_empty() => String::new(),
            None => {
                let message = format!("{} must be text, got null", at("content"));
                return Err(ApiError::invalid_param(at("content"), message));
            }
        };
        let (role, tool_call_id) = (Role::from(self.role.as_str()), self.tool_call_id);
        Ok(Message { role, content, name: self.name, tool_calls, tool_call_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn body(rest: &str) -> Result<ChatBody, ApiError> {
        let text = format!(
            "{{\"model\": \"m\", \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}]{rest}}}"
        );
        parse(text.as_bytes())
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        let check = |rest: &str, expect: Option<&str>| {
            let found = body(rest).and_then(|body| body.check()).err();
            assert_eq!(found.and_then(|error| error.param).as_deref(), expect, "{rest}");
        };
        check("", None);
        check(", \"tools\": []", None);
        check(", \"tools\": null, \"tool_choice\": \"auto\", \"parallel_tool_calls\": true", None);
        check(", \"functions\": [{}]", Some("functions"));
        check(", \"function_call\": {\"name\": \"f\"}", Some("function_call"));
        check(", \"response_format\": {\"type\": \"text\"}", None);
        check(", \"modalities\": [\"text\"]", None);
        check(", \"modalities\": [\"audio\"]", Some("modalities"));
        check(", \"user\": \"u\", \"metadata\": {\"a\": \"b\"}, \"store\": false", None);
        check(", \"max_token\": 5", Some("max_token"));
    }

    fn messages(messages: &str) -> Result<Vec<Message>, ApiError> {
        let text = format!("{{\"model\": \"m\", \"messages\": [{messages}]}}");
        parse::<ChatBody>(text.as_bytes()).and_then(|mut body| body.messages())
    }

    #[test]
    fn a_bad_message_is_named() {
        let check = |rest: &str, expect: &str| {
            let error = messages(&format!("{{\"role\": \"assistant\", {rest}}}")).expect_err(rest);
            let param = error.param.unwrap_or_default();
            assert!(param.starts_with("messages[0]") && param.ends_with(expect), "{param}: {rest}");
        };
        check("\"content\": [{\"type\": \"image_url\"}]", ".content[0].type");
        check("\"content\": null", ".content");
        check("\"content\": null, \"tool_calls\": []", ".content");
        check("\"content\": 5", ".content");
        check("\"content\": \"\", \"refusal\": \"no\"", ".refusal");
        let call =
            |call: &str| format!("\"tool_calls\": [{{\"function\": {{\"name\": \"f\", {call}}}}}]");
        check(&call("\"arguments\": \"{\""), ".tool_calls[0].function.arguments");
        check(&call("\"arguments\": \"[1]\""), ".tool_calls[0].function.arguments");
        check(&call("\"arguments\": {}"), ".function.arguments");
        let other = "\"tool_calls\": [{\"type\": \"custom\", \"function\": {\"name\": \"f\"}}]";
        check(other, ".tool_calls[0].type");
    }

    #[test]
    fn calls_and_their_results_are_messages() {
        let read = messages(
            "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c1\", \"type\": \
             \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"a\\\": [1]}\"}}, \
             {\"function\": {\"name\": \"g\", \"arguments\": \"\"}}]}, \
             {\"role\": \"tool\", \"tool_call_id\": \"c1\", \"content\": \"4\"}",
        );
        let read = read.expect("a call and its result");
        assert_eq!((read[0].content.as_str(), read[0].tool_calls.len()), ("", 2));
        assert_eq!(read[0].tool_calls[0].arguments["a"], serde_json::json!([1]));
        assert_eq!(read[0].tool_calls[0].id, "c1");
        assert!(read[0].tool_calls[1].arguments.is_empty());
        assert_eq!(read[1].tool_call_id.as_deref(), Some("c1"));
    }

    #[test]
    fn both_names_of_the_limit_must_agree() {
        let check = |rest: &str, old: Option<u32>, expect: Option<Option<u32>>| {
            let body = body(rest).expect("a body");
            assert_eq!(body.tokens_max(old).ok(), expect, "{rest} {old:?}");
        };
        check("", None, Some(None));
        check("", Some(3), Some(Some(3)));
        check(", \"max_completion_tokens\": 4", None, Some(Some(4)));
        check(", \"max_completion_tokens\": 4", Some(4), Some(Some(4)));
        check(", \"max_completion_tokens\": 4", Some(5), None);
    }

    #[test]
    fn alternatives_need_logprobs() {
        let check = |rest: &str, expect: Option<Option<u32>>| {
            assert_eq!(body(rest).expect("a body").logprobs().ok(), expect, "{rest}");
        };
        check("", Some(None));
        check(", \"logprobs\": true", Some(Some(0)));
        check(", \"logprobs\": true, \"top_logprobs\": 20", Some(Some(20)));
        check(", \"logprobs\": true, \"top_logprobs\": 21", None);
        check(", \"logprobs\": false, \"top_logprobs\": 5", None);
    }
}
