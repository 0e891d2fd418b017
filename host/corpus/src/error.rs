//! Why a segment could not be built or opened.

use std::io;
use std::path::PathBuf;

/// Why a segment could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The operating system refused.
    #[error("write segment {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to index.
    #[error("the corpus has no documents")]
    Empty,
    /// More symbols than a segment holds.
    #[error("the corpus has more than {limit} tokens")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A token id that leaves no room for the separator.
    #[error("document {document}: token id {token} is over the limit of {limit}")]
    Token {
        /// The document.
        document: String,
        /// The id.
        token: u32,
        /// The limit.
        limit: u32,
    },
    /// The suffix sorter failed.
    #[error("sort suffixes: {reason}")]
    Sort {
        /// What it said.
        reason: String,
    },
}

/// Why a segment could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused.
    #[error("read segment {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not a segment, or not whole.
    #[error("segment {path}: {field}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, as `FORMAT.md` names it.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}
