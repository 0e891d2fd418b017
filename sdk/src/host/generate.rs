//! Answers from the host's own models. Needs the capability `generate`, which only agents get.

use super::backend;
use crate::types::{Attr, Message, Result, Sampling, Usage};

/// What to ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The base model's name or an adapter's; empty is the host's base model.
    pub model: String,
    /// The conversation to answer.
    pub messages: Vec<Message>,
    /// How to sample.
    pub sampling: Sampling,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The model's turn.
    pub message: Message,
    /// As the OpenAI API spells it.
    pub finish_reason: String,
    /// Tokens used.
    pub usage: Usage,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// Waits for the whole answer. Every token of prompt and answer counts against the run's budget.
///
/// # Errors
/// `over-budget` when the run's tokens are used up, `not-found` for an unknown model.
pub fn run(request: Request) -> Result<Completion> {
    backend::generate(request)
}

/// Tokens that the run may still use.
#[must_use]
pub fn budget_tokens() -> u32 {
    backend::budget_tokens()
}
