//! The operator's settings.

use mortise_sdk::{Error, Result};
use serde::Deserialize;

/// `[config]`, whose defaults are in `plugin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    min_score: f64,
    min_margin: f64,
}

impl Settings {
    /// Refuses a margin that nothing could fall below, and numbers that are none.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.min_score.is_finite() {
            return Err(Error::invalid("config: min_score must be a finite number"));
        }
        if !self.min_margin.is_finite() || self.min_margin < 0.0 {
            return Err(Error::invalid("config: min_margin must be 0 or more"));
        }
        Ok(())
    }

    /// Whether the best corpus is close enough.
    pub(crate) fn accepts(&self, score: f64, margin: f64) -> bool {
        score >= self.min_score && margin >= self.min_margin
    }
}
