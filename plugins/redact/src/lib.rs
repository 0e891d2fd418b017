//! A preprocessor that takes secrets and personal data out of a conversation before the model sees
//! it: e-mail addresses, telephone numbers, IBANs (with their checksum), payment cards (with theirs),
//! API keys by their well-known shapes, JSON web tokens, and PEM private keys.
//!
//! Each find is replaced by a placeholder that names its category and counts its different values,
//! so the model can still tell two people apart: `[email 1] wrote to [email 2]`. With `on_match =
//! "reject"` the request is refused with 422 instead. Texts, names and JSON parts of messages of
//! every role are looked at; media are not.
//!
//! The scanners are written by hand, for an instance lives for one request and has nothing to
//! compile first. Each reads a text once, from left to right, and looks a bounded distance ahead, so
//! no text makes them slow. Shapes are not proof: a number that happens to pass a checksum is
//! redacted too, and a secret without a shape (a password in prose) is not found.

#![forbid(unsafe_code)]

mod redactor;
mod scan;
mod settings;

use mortise_sdk::{
    Message, Outcome, Part, Preprocessor, Reject, RequestInfo, Result, Sampling, config, metrics,
};

use crate::redactor::Redactor;
use crate::settings::{OnMatch, Settings};

struct Redact {
    settings: Settings,
}

mortise_sdk::export!(preprocessor: Redact);

impl Preprocessor for Redact {
    fn new() -> Result<Self> {
        let settings: Settings = config::read()?;
        settings.check()?;
        Ok(Self { settings })
    }

    fn process(
        &mut self,
        _request: &RequestInfo,
        mut messages: Vec<Message>,
        _sampling: &Sampling,
    ) -> Result<Outcome> {
        let mut redactor = Redactor::new(&self.settings.categories, &self.settings.placeholder);
        for message in &mut messages {
            redactor.text_option(&mut message.name);
            for part in &mut message.parts {
                match part {
                    Part::Text(text) => redactor.text(text),
                    Part::Json(json) | Part::Other(_, json) => redactor.json(json),
                    Part::Media(_) => {}
                }
            }
        }
        let found = redactor.found();
        if found.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        for (category, count) in &found {
            metrics::count(category.metric(), *count);
        }
        if self.settings.on_match == OnMatch::Reject {
            let names: Vec<&str> = found.iter().map(|(category, _)| category.as_str()).collect();
            let message = format!("the conversation holds {}", names.join(", "));
            return Ok(Outcome::Reject(Reject::new(422, "sensitive-data", message)));
        }
        Ok(Outcome::Change { messages, sampling: None })
    }
}

#[cfg(test)]
mod tests;
