//! What can go wrong, with the place.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a receipt was not written, or the log not opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the log open.
    #[error("{path} is held by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The log is damaged in a way that no crash explains.
    #[error(transparent)]
    Damaged(#[from] VerifyError),
    /// An earlier write failed; what is on disk is unknown until the log is opened again.
    #[error("an earlier write failed: {reason}")]
    Poisoned {
        /// That failure.
        reason: String,
    },
    /// The entry breaks a rule.
    #[error("entry refused: {reason}")]
    Refused {
        /// Which.
        reason: String,
    },
    /// The ledger has been closed.
    #[error("the ledger is closed")]
    Closed,
}

/// The first place where a log does not check out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: record {index} at byte {offset}: {reason}")]
pub struct VerifyError {
    /// File name of the segment.
    pub file: String,
    /// Index of the record in the whole log.
    pub index: u64,
    /// Offset in the file.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl LedgerError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }
}
