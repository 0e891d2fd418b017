//! What can go wrong between text and tokens.

use std::io;
use std::path::PathBuf;

/// Why a tokenizer or template could not be loaded or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizationError {
    /// The operating system refused.
    #[error("read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Text could not be encoded.
    #[error("encode text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// Token ids could not be decoded.
    #[error("decode tokens: {reason}")]
    Decode {
        /// What the tokenizer said.
        reason: String,
    },
    /// A grammar that says nothing, or asks for too much.
    #[error("grammar: {reason}")]
    Grammar {
        /// What is wrong with it.
        reason: String,
    },
    /// The chat template refused the messages, or is broken.
    #[error("chat template, line {line}: {reason}")]
    Template {
        /// Line of the template, from 1; 0 if there is none.
        line: usize,
        /// What it said.
        reason: String,
    },
}
