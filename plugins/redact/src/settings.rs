//! The operator's settings.

use mortise_sdk::{Error, Result};
use serde::Deserialize;

use crate::scan::Category;

/// Longest placeholder, in bytes.
const PLACEHOLDER_BYTES_MAX: usize = 128;

/// What a find leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnMatch {
    Redact,
    Reject,
}

/// `[config]`, whose defaults are in `plugin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) categories: Vec<Category>,
    pub(crate) placeholder: String,
    pub(crate) on_match: OnMatch,
}

impl Settings {
    /// Refuses a placeholder that is no plain text or would be taken for a find in turn.
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
        if self.placeholder.len() > PLACEHOLDER_BYTES_MAX || !self.placeholder.chars().all(plain) {
            let message = "config: placeholder must be at most 128 bytes without quotes, \
                           backslashes and control characters";
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}
