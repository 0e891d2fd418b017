//! Shapes of the wire, in and out. Names and meanings are OpenAI's and, beyond those, vLLM's.
//! Fields that would change the answer and are not supported are refused, never ignored.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod content;
pub(crate) mod embeddings;
pub(crate) mod logprobs;
pub(crate) mod mortise;
pub(crate) mod object;
pub(crate) mod responses;
pub(crate) mod sampling;
pub(crate) mod structured;
pub(crate) mod tools;
pub(crate) mod usage;
