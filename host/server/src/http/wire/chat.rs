//! `/v1/chat/completions`.

use request::sampling::LOGPROBS_MAX;
use request::{Message, Role};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::http::wire::sampling::{is_asked, refuse_if, request_body};

request_body!(
    /// A chat request as written.
    ChatBody {
        messages: Vec<WireMessage>,
        max_completion_tokens: Option<u32>,
        logprobs: Option<bool>,
        top_logprobs: Option<u32>,
        tools: Option<Vec<IgnoredAny>>,
        tool_choice: Option<Value>,
        functions: Option<Vec<IgnoredAny>>,
        function_call: Option<Value>,
        #[serde(default, rename = "parallel_tool_calls")]
        _parallel_tool_calls: IgnoredAny,
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
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    function_call: Option<Value>,
    #[serde(default)]
    audio: Option<Value>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default, rename = "tool_call_id")]
    _tool_call_id: IgnoredAny,
}

/// Text, or parts of it.
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
    #[serde(default)]
    text: Option<String>,
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
        refuse_if(is_asked(self.tools.as_ref()), "tools")?;
        refuse_if(is_asked(self.functions.as_ref()), "functions")?;
        refuse_if(called(self.tool_choice.as_ref()), "tool_choice")?;
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
        refuse_if(is_asked(self.tool_calls.as_ref()), &at("tool_calls"))?;
        refuse_if(self.function_call.is_some(), &at("function_call"))?;
        refuse_if(self.audio.is_some(), &at("audio"))?;
        refuse_if(self.refusal.is_some(), &at("refusal"))?;
        if self.role.is_empty() {
            return Err(ApiError::invalid_param(at("role"), "role must not be empty"));
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => join(parts, &at("content"))?,
            None => {
                let message = format!("{} must be text, got null", at("content"));
                return Err(ApiError::invalid_param(at("content"), message));
            }
        };
        Ok(Message { role: Role::from(self.role.as_str()), content, name: self.name })
    }
}

fn join(parts: Vec<Part>, at: &str) -> Result<String, ApiError> {
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        match (part.kind.as_str(), part.text) {
            ("text", Some(piece)) => text.push_str(&piece),
            ("text", None) => {
                let param = format!("{at}[{index}].text");
                return Err(ApiError::invalid_param(&param, format!("{param} is missing")));
            }
            (kind, _) => {
                let message = format!("{at}[{index}] is of type `{kind}`; this model reads text");
                let error = ApiError::invalid_param(format!("{at}[{index}].type"), message);
                return Err(error.with_code("unsupported_parameter"));
            }
        }
    }
    Ok(text)
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
        check(", \"tools\": [{\"type\": \"function\"}]", Some("tools"));
        check(", \"tool_choice\": \"required\"", Some("tool_choice"));
        check(", \"response_format\": {\"type\": \"text\"}", None);
        check(", \"modalities\": [\"text\"]", None);
        check(", \"modalities\": [\"audio\"]", Some("modalities"));
        check(", \"user\": \"u\", \"metadata\": {\"a\": \"b\"}, \"store\": false", None);
        check(", \"max_token\": 5", Some("max_token"));
    }

    #[test]
    fn parts_of_text_are_joined_and_others_refused() {
        let messages = |content: &str| {
            let text = format!(
                "{{\"model\": \"m\", \"messages\": [{{\"role\": \"user\", \"content\": {content}}}]}}"
            );
            parse::<ChatBody>(text.as_bytes()).and_then(|mut body| body.messages())
        };
        let text = "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}]";
        assert_eq!(messages(text).expect("text")[0].content, "ab");
        let image = "[{\"type\": \"image_url\", \"image_url\": {\"url\": \"x\"}}]";
        let refused = messages(image).expect_err("an image");
        assert_eq!(refused.param.as_deref(), Some("messages[0].content[0].type"));
        let refused = messages("null").expect_err("null");
        assert_eq!(refused.param.as_deref(), Some("messages[0].content"));
        assert!(messages("5").is_err());
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
