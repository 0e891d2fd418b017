//! The operator's settings.

use mortise_sdk::{Error, Result};
use serde::Deserialize;

use crate::pattern::Pattern;

/// Most states of all patterns together: the time that one character may cost.
const STATES_MAX: usize = 4096;

/// What a match leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnMatch {
    Mask,
    Stop,
}

/// `[config]`, whose defaults are in `plugin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    words: Vec<String>,
    patterns: Vec<String>,
    ignore_case: bool,
    whole_words: bool,
    pub(crate) mask: String,
    pub(crate) on_match: OnMatch,
}

impl Settings {
    /// Words and patterns, compiled.
    pub(crate) fn patterns(&self) -> Result<Vec<Pattern>> {
        let refuse = |text: &str, reason: String| {
            Error::invalid(format!("config: pattern `{}`: {reason}", text.escape_debug()))
        };
        let mut patterns = Vec::new();
        for word in &self.words {
            let pattern = Pattern::word(word, self.ignore_case, self.whole_words);
            patterns.push(pattern.map_err(|reason| refuse(word, reason))?);
        }
        for text in &self.patterns {
            let pattern = Pattern::parse(text, self.ignore_case);
            patterns.push(pattern.map_err(|reason| refuse(text, reason))?);
        }
        let states: usize = patterns.iter().map(Pattern::states).sum();
        if states > STATES_MAX {
            let message = format!(
                "config: words and patterns have {states} states in all, more \
                                   than {STATES_MAX}: shorten repeats or drop some"
            );
            return Err(Error::invalid(message));
        }
        Ok(patterns)
    }
}
