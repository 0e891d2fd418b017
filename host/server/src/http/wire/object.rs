//! The objects that answers and their chunks are written as.

use request::TokenId;
use serde::Serialize;

use crate::http::calls::{CallPart, Spoken};
use crate::http::wire::logprobs::{ChatLogprobs, CompletionLogprobs};
use crate::http::wire::mortise::MortiseWire;
use crate::http::wire::usage::WireUsage;

/// An answer or a chunk of one. `C` is the shape of a choice.
#[derive(Debug, Serialize)]
pub(crate) struct Object<'a, C> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<C>,
    pub(crate) system_fingerprint: &'a str,
    /// Chat only: a completion has them in each choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<&'a [TokenId]>,
    /// Absent, null (in chunks before the one that has it), or the counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Option<WireUsage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mortise: Option<MortiseField>,
}

impl<'a, C> Object<'a, C> {
    /// The same with choices.
    pub(crate) fn with<D>(self, choices: Vec<D>) -> Object<'a, D> {
        Object {
            id: self.id,
            object: self.object,
            created: self.created,
            model: self.model,
            choices,
            system_fingerprint: self.system_fingerprint,
            prompt_token_ids: self.prompt_token_ids,
            usage: self.usage,
            mortise: self.mortise,
        }
    }
}

/// The extension of one prompt's answer, or of several.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum MortiseField {
    One(MortiseWire),
    Many { prompts: Vec<MortiseWire> },
}

impl MortiseField {
    pub(crate) fn new(mut of_prompts: Vec<MortiseWire>) -> Option<Self> {
        if of_prompts.len() > 1 {
            return Some(Self::Many { prompts: of_prompts });
        }
        of_prompts.pop().map(Self::One)
    }
}

/// A choice of a chat.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChoice {
    pub(crate) index: u32,
    pub(crate) message: AssistantMessage,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AssistantMessage {
    role: &'static str,
    /// Null where there is nothing but calls.
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallWire>,
}

impl AssistantMessage {
    pub(crate) fn new(spoken: Spoken) -> Self {
        let silent = spoken.content.is_empty() && !spoken.calls.is_empty();
        let content = (!silent).then_some(spoken.content);
        let tool_calls = spoken.calls.into_iter().map(CallWire::whole).collect();
        Self { role: "assistant", content, refusal: None, tool_calls }
    }
}

/// A call of a tool, or in a chunk more of one.
#[derive(Debug, Serialize)]
pub(crate) struct CallWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionWire,
}

#[derive(Debug, Serialize)]
struct FunctionWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl CallWire {
    /// As a chunk has it.
    pub(crate) fn part(part: CallPart) -> Self {
        let kind = part.begun.is_some().then_some("function");
        let (id, name) = part.begun.unzip();
        let function = FunctionWire { name, arguments: part.arguments };
        Self { index: Some(part.index), id, kind, function }
    }

    /// As a whole answer has it.
    fn whole(part: CallPart) -> Self {
        Self { index: None, ..Self::part(part) }
    }
}

/// A choice of a chat's chunk.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChunkChoice {
    pub(crate) index: u32,
    pub(crate) delta: Delta,
    pub(crate) logprobs: Option<ChatLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<CallWire>,
}

/// A choice of a completion, whole or in a chunk.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionChoice {
    pub(crate) index: u32,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    pub(crate) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Vec<TokenId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}
