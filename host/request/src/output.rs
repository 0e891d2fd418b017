//! How a request ends and what it used.

use serde::{Deserialize, Serialize};

use crate::ids::TokenId;

/// Why the last token was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token, a stop token or a stop string.
    Stop,
    /// `max_tokens` was reached, or the model's context was full.
    Length,
    /// A plugin ended the answer.
    ContentFilter,
    /// The client went away, or the server gave up at a deadline.
    Cancelled,
}

impl FinishReason {
    /// The reason as the OpenAI API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in the prompt, cached ones included.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Prompt tokens that a prefix block already held.
    pub cached_tokens: u32,
}

impl Usage {
    /// Sums the fields; saturates, because usage is a report and must not panic.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
        }
    }
}

/// Log probability (natural, of the model's own distribution before penalties and temperature) of
/// one token, with the most likely ones beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token that was chosen.
    pub token: TokenId,
    /// Its log probability.
    pub logprob: f32,
    /// The `logprobs` most likely tokens, best first.
    pub top: Vec<(TokenId, f32)>,
}
