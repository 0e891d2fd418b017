//! The base model's tokenizer. Needs the capability `tokenizer`.

use super::backend;
use crate::types::Result;

/// Number of tokens of `text`.
///
/// # Errors
/// The host's refusal.
pub fn count(text: &str) -> Result<u32> {
    backend::tokenizer_count(text)
}

/// Tokens of `text`, without special tokens added.
///
/// # Errors
/// The host's refusal.
pub fn encode(text: &str) -> Result<Vec<u32>> {
    backend::tokenizer_encode(text)
}

/// Text of `ids`.
///
/// # Errors
/// The host's refusal, for instance of an id outside the vocabulary.
pub fn decode(ids: &[u32]) -> Result<String> {
    backend::tokenizer_decode(ids)
}
