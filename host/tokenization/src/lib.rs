//! Between text and token ids: chat templates, encoding, decoding as tokens arrive, stop strings.
//!
//! Parts: [`tokenizer`], [`chat_template`], [`incremental`] (text from tokens that come one by one),
//! [`stop`], [`constraint`] (grammars as masks), [`tool_calls`] (calls in what a model writes), `gguf`
//! (tokenizers in the metadata of GGUF files). The only owner of the `tokenizers`, `minijinja` and
//! `llguidance` crates. Never decides what a request may do; limits on the length of texts are the
//! caller's.

#![forbid(unsafe_code)]

pub mod chat_template;
pub mod constraint;
pub mod error;
mod gguf;
pub mod incremental;
mod python_json;
pub mod stop;
pub mod tokenizer;
pub mod tool_calls;

pub use chat_template::ChatTemplate;
pub use constraint::{Allowed, Grammar, GrammarCompiler, TokenMatcher};
pub use error::TokenizationError;
pub use incremental::IncrementalDecoder;
pub use stop::{StopMatcher, StopPush};
pub use tokenizer::Tokenizer;
pub use tool_calls::{Said, ToolCallFormat, ToolCallParser};
