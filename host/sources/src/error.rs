//! What can go wrong between an address and a directory, with the place. Never carries a secret.

use std::io;
use std::path::{Path, PathBuf};

/// Why an adapter was not fetched. Nothing is visible of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// An address that can't be one.
    #[error("{location:?} is no place for adapters: {reason}")]
    Location {
        /// As it was written.
        location: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An address that the operator has not allowed.
    #[error("{location} is not below any of the sources that adapters may be fetched from")]
    NotAllowed {
        /// The address.
        location: String,
    },
    /// A file that an adapter must have.
    #[error("{location} has no {file}")]
    Missing {
        /// The adapter's address.
        location: String,
        /// Name of the file.
        file: &'static str,
    },
    /// The other side refused, or could not be reached.
    #[error("fetch {file} of {location}: {reason}")]
    Remote {
        /// The adapter's address.
        location: String,
        /// Name of the file.
        file: &'static str,
        /// What the other side, or the way to it, said.
        reason: String,
    },
    /// More bytes than an adapter may have.
    #[error("{location} has {bytes} bytes, an adapter may have {bytes_max}")]
    TooLarge {
        /// The adapter's address.
        location: String,
        /// Bytes of its files.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The cache is full of adapters that have names.
    #[error(
        "{location} needs {bytes} bytes of the cache, of which {held} of {bytes_max} are in use"
    )]
    CacheFull {
        /// The adapter's address.
        location: String,
        /// Bytes of its files.
        bytes: u64,
        /// Bytes of adapters in use.
        held: u64,
        /// The budget.
        bytes_max: u64,
    },
    /// A file of another length than was announced.
    #[error("{file} of {location} has {found} bytes, {expected} were announced")]
    Length {
        /// The adapter's address.
        location: String,
        /// Name of the file.
        file: &'static str,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A file with another content than it should have.
    #[error("{file} of {location} has the SHA-256 {found}, it should be {expected}")]
    Checksum {
        /// The adapter's address.
        location: String,
        /// Name of the file.
        file: &'static str,
        /// Digest wanted.
        expected: String,
        /// Digest found.
        found: String,
    },
    /// Too many are fetched now.
    #[error("{location} has to wait: {waiting_max} others are being fetched or wait for it")]
    Busy {
        /// The adapter's address.
        location: String,
        /// How many may be fetched or wait.
        waiting_max: usize,
    },
    /// It took too long.
    #[error("{location} was not fetched within {seconds} s")]
    Timeout {
        /// The adapter's address.
        location: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A file of the cache.
    #[error("{action} {path}: {source}")]
    Cache {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no client for it.
    #[error("prepare to fetch from {location}: {reason}")]
    Setup {
        /// The address.
        location: String,
        /// Why.
        reason: String,
    },
}

/// Characters of what the other side said that are passed on.
const REASON_CHARS_MAX: usize = 300;

impl SourceError {
    /// What the other side said, or the way to it: the beginning, in one line.
    pub(crate) fn remote(location: &str, file: &'static str, reason: &str) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let reason = reason.chars().take(REASON_CHARS_MAX).map(plain).collect();
        Self::Remote { location: location.to_owned(), file, reason }
    }

    pub(crate) fn cache(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Cache { action, path, source }
    }
}
