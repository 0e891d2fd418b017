//! What can go wrong, with the place.

use std::io;
use std::path::{Path, PathBuf};

/// Why something was not made, measured or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting can't be met.
    #[error("{name}: {reason}")]
    Setting {
        /// Its name on the command line.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A server does not answer as it must before anything can be measured.
    #[error("{url}: {reason}")]
    Server {
        /// Its address.
        url: String,
        /// What happened.
        reason: String,
    },
}

impl BenchError {
    /// Wraps what the system said about one file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A setting, and what is wrong with it.
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { name, reason: reason.into() }
    }
}
