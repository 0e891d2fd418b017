//! Lines into the host's log, tagged with the plugin and the request. The host cuts long lines and
//! drops lines over the call's budget.

use super::backend;
use crate::types::Attr;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For the plugin's author.
    Debug,
    /// For operators.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

/// Whether a line of this level would be kept: ask before building an expensive one.
#[must_use]
pub fn enabled(level: Level) -> bool {
    backend::log_enabled(level)
}

/// Logs `message` with `fields`.
pub fn log(level: Level, message: &str, fields: &[Attr]) {
    backend::log(level, message, fields);
}

/// Logs at [`Level::Debug`].
pub fn debug(message: &str) {
    log(Level::Debug, message, &[]);
}

/// Logs at [`Level::Info`].
pub fn info(message: &str) {
    log(Level::Info, message, &[]);
}

/// Logs at [`Level::Warn`].
pub fn warn(message: &str) {
    log(Level::Warn, message, &[]);
}

/// Logs at [`Level::Error`].
pub fn error(message: &str) {
    log(Level::Error, message, &[]);
}
