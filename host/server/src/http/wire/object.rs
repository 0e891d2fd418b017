//! The objects that answers and their chunks are written as.

use request::{FinishReason, TokenId};
use serde::Serialize;

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
    content: String,
    refusal: Option<String>,
}

impl AssistantMessage {
    pub(crate) fn new(content: String) -> Self {
        Self { role: "assistant", content, refusal: None }
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

/// The reason on the wire. A cancelled answer has nobody to read it.
pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    reason.as_str()
}
