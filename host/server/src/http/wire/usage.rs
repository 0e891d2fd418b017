//! Token counts on the wire.

use request::Usage;
use serde::Serialize;

/// `usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WireUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

impl WireUsage {
    /// What is known before the end.
    pub(crate) fn so_far(prompt_tokens: usize, completion_tokens: usize) -> Self {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let (prompt_tokens, completion_tokens) = (count(prompt_tokens), count(completion_tokens));
        Usage { prompt_tokens, completion_tokens, cached_tokens: 0 }.into()
    }
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
        }
    }
}
