//! Configuration: one TOML file, a flag for every key, and what comes of both.
//!
//! Parts: [`settings`] (every key, once), [`limits`] (the table of limits), [`adapter`] and
//! [`plugin`] (entries of lists), [`resolved`] (complete and checked). A flag wins over the file,
//! the file over the default. Nothing outside this folder sees a setting that was not checked.

pub(crate) mod adapter;
pub(crate) mod limits;
pub(crate) mod plugin;
pub(crate) mod resolved;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(crate) use limits::Limits;
pub(crate) use resolved::{
    ADMIN_LISTEN, Config, DATA_DIR, DeviceName, KvCacheDtype, LISTEN, LogFormat, Quantize,
};
pub(crate) use settings::Settings;

/// Longest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too long to be one.
    #[error("{path} has {bytes} bytes, more than {FILE_BYTES_MAX}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not a configuration.
    #[error("{path}: line {line}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A value out of its bounds.
    #[error(transparent)]
    Limit(#[from] limits::LimitError),
    /// A value that does not make sense.
    #[error("{key} must be {expected}, got {got}")]
    Value {
        /// The key.
        key: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A key without which nothing can start.
    #[error("{key} is missing: give it in the file or as a flag")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Anybody could use the model.
    #[error(
        "{listen} can be reached from other machines, and there are no API keys: set \
         api_keys_file, listen on 127.0.0.1, or set allow_remote_without_keys"
    )]
    RemoteWithoutKeys {
        /// The address.
        listen: SocketAddr,
    },
}

/// Reads a file. Relative paths in it are relative to its directory.
pub(crate) fn read(path: &Path) -> Result<Settings, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    Ok(parse(&text, path)?.based_on(dir))
}

/// Parses the text of a file; `path` is for errors.
fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        let reason = error.message().to_owned();
        ConfigError::File { path: path.to_owned(), line, reason }
    })
}
