//! The vocabulary of Mortise: what a request, its sampling and its outcome are called everywhere.
//!
//! Parts: [`ids`] (tokens, digests, adapter generations), [`message`] (chat turns), [`sampling`]
//! (how tokens are chosen, with every bound checked), [`serving`] (what changes no answer),
//! [`output`] (why a request ended, what it used, what a token cost).
//!
//! This crate never reads a file, a clock or the environment, knows no wire format and depends on
//! nothing heavy, so that the scheduler can use it in a million-step simulation.

#![forbid(unsafe_code)]

pub mod ids;
pub mod message;
pub mod output;
pub mod sampling;
pub mod serving;

pub use ids::{AdapterGeneration, Digest, RequestId, TokenId};
pub use message::{Message, Role, ToolCall};
pub use output::{FinishReason, TokenLogprob, Usage};
pub use sampling::{SamplingError, SamplingParams};
pub use serving::ServingOptions;
