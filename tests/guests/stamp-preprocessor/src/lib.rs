//! A preprocessor whose version shows: it ends the last user message with ` [pre <version>]`, or
//! with the config `mode = "respond"` answers exactly that. Versions from 9.0.0 on fail their init,
//! to prove that a bad version leaves the one before in place.

#![forbid(unsafe_code)]

use mortise_sdk::{
    Error, Message, Outcome, Preprocessor, RequestInfo, Result, Role, Sampling, config,
};

const STAMP: &str = concat!("[pre ", env!("CARGO_PKG_VERSION"), "]");

struct Stamp {
    responds: bool,
}

mortise_sdk::export!(preprocessor: Stamp);

impl Preprocessor for Stamp {
    fn new() -> Result<Self> {
        if env!("CARGO_PKG_VERSION_MAJOR") == "9" {
            return Err(Error::invalid("version 9 never starts"));
        }
        Ok(Self { responds: config::get("mode").as_deref() == Some("respond") })
    }

    fn process(
        &mut self,
        _request: &RequestInfo,
        mut messages: Vec<Message>,
        _sampling: &Sampling,
    ) -> Result<Outcome> {
        if self.responds {
            return Ok(Outcome::Respond(Message::assistant(STAMP)));
        }
        let last = messages.iter_mut().rev().find(|message| message.role == Role::User);
        let Some(text) = last.and_then(|message| message.texts_mut().last()) else {
            return Ok(Outcome::Unchanged);
        };
        text.push(' ');
        text.push_str(STAMP);
        Ok(Outcome::Change { messages, sampling: None })
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn the_last_user_message_is_stamped() {
        let messages = vec![Message::user("a"), Message::user("b"), Message::assistant("c")];
        let outcome = Harness::new().preprocess::<Stamp>(messages.clone());
        let mut expect = messages;
        expect[1] = Message::user(format!("b {STAMP}"));
        assert_eq!(outcome, Ok(Outcome::Change { messages: expect, sampling: None }));
        let outcome = Harness::new().preprocess::<Stamp>(vec![Message::assistant("c")]);
        assert_eq!(outcome, Ok(Outcome::Unchanged));
    }

    #[test]
    fn or_answered() {
        let harness = Harness::new().config("mode", "respond");
        let outcome = harness.preprocess::<Stamp>(vec![Message::user("a")]);
        assert_eq!(outcome, Ok(Outcome::Respond(Message::assistant(STAMP))));
    }
}
