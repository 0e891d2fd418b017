//! A postprocessor that masks configured words and patterns in an answer as it streams, wherever the
//! chunks are cut.
//!
//! Text is held only while it may still be part of a match: the matcher keeps one thread per state of
//! its patterns, and what is held starts where the oldest living thread started. Patterns have no
//! unbounded repeats, so at most 256 characters, the longest match that is allowed, and the one after
//! it are ever held; with the word `secret` alone, seven. Everything else goes on at once. Of overlapping
//! matches the leftmost counts, and of those that start together the longest. A character costs time
//! in proportion to the patterns' states, of which there are at most 4096, whatever the text.

#![forbid(unsafe_code)]

mod matcher;
mod pattern;
mod settings;

use mortise_sdk::{Action, Postprocessor, RequestInfo, Result, config, metrics};

use crate::matcher::Matcher;
use crate::settings::{OnMatch, Settings};

struct Mask {
    matcher: Matcher,
    mask: String,
    stops: bool,
    /// Text that has not gone on: it starts at byte `base` of the answer.
    held: String,
    base: usize,
    masked: u64,
}

mortise_sdk::export!(postprocessor: Mask);

impl Postprocessor for Mask {
    fn new() -> Result<Self> {
        let settings: Settings = config::read()?;
        Ok(Self {
            matcher: Matcher::new(settings.patterns()?),
            mask: settings.mask,
            stops: settings.on_match == OnMatch::Stop,
            held: String::new(),
            base: 0,
            masked: 0,
        })
    }

    fn open(&mut self, _request: &RequestInfo) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, text: String) -> Result<Action> {
        let held_before = !self.held.is_empty();
        self.held.push_str(&text);
        self.matcher.push(&text);
        let masked_before = self.masked;
        let (out, stopped) = self.release(self.matcher.settled());
        if stopped {
            self.count();
            return Ok(Action::Stop(out));
        }
        let untouched = !held_before && self.held.is_empty() && self.masked == masked_before;
        Ok(if untouched {
            Action::Pass
        } else if out.is_empty() {
            Action::Hold
        } else {
            Action::Replace(out)
        })
    }

    fn finish(&mut self, _finish_reason: &str) -> Result<String> {
        self.matcher.finish();
        let (out, _) = self.release(self.matcher.settled());
        self.count();
        Ok(out)
    }
}

impl Mask {
    /// Takes from the held text what can no longer be part of a new match, with its matches masked,
    /// up to byte `settled` of the answer. Tells whether a match ends the answer.
    fn release(&mut self, settled: usize) -> (String, bool) {
        let mut out = String::new();
        let mut from = self.base;
        for found in self.matcher.take_settled() {
            out.push_str(&self.held[from - self.base..found.start - self.base]);
            out.push_str(&self.mask);
            from = found.end;
            self.masked += 1;
            if self.stops {
                self.held.clear();
                return (out, true);
            }
        }
        let settled = settled.max(from);
        out.push_str(&self.held[from - self.base..settled - self.base]);
        self.held.drain(..settled - self.base);
        self.base = settled;
        (out, false)
    }

    fn count(&self) {
        if self.masked > 0 {
            metrics::count("masked", self.masked);
        }
    }
}

#[cfg(test)]
mod tests;
