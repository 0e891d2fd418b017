//! The operator's settings.

use mortise_sdk::{Error, Result};
use serde::Deserialize;

/// Most steps and most tokens of a reply that may be configured.
const STEPS_MAX: u32 = 32;
/// See [`STEPS_MAX`].
const REPLY_TOKENS_MAX: u32 = 8192;

/// `[config]`, whose defaults are in `plugin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) model: String,
    pub(crate) steps_max: u32,
    pub(crate) reply_tokens_max: u32,
}

impl Settings {
    /// Refuses limits that are none.
    pub(crate) fn check(&self) -> Result<()> {
        let limits = [
            ("steps_max", self.steps_max, STEPS_MAX),
            ("reply_tokens_max", self.reply_tokens_max, REPLY_TOKENS_MAX),
        ];
        for (key, value, most) in limits {
            if !(1..=most).contains(&value) {
                return Err(Error::invalid(format!("config: {key} must be 1 to {most}")));
            }
        }
        Ok(())
    }
}
