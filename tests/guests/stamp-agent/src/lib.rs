//! An agent that answers `[agent <version>]` and the number of messages it was given.

#![forbid(unsafe_code)]

use mortise_sdk::{Agent, Message, RequestInfo, Result};

const VERSION: &str = env!("CARGO_PKG_VERSION");

struct Stamp;

mortise_sdk::export!(agent: Stamp);

impl Agent for Stamp {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn run(&mut self, _request: &RequestInfo, messages: Vec<Message>) -> Result<Message> {
        Ok(Message::assistant(format!("[agent {VERSION}] {}", messages.len())))
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn it_says_who_it_is() {
        let answer = Harness::new().run::<Stamp>(vec![Message::user("a")]).expect("answers");
        assert_eq!(answer.text(), format!("[agent {VERSION}] 1"));
    }
}
