//! A preprocessor that misbehaves when a user message has a trigger: `<loop>` never returns, `<grow>`
//! wants all memory there is, `<trap>` panics, `<flood>` returns a message of 8 MiB.

#![forbid(unsafe_code)]

use std::hint::black_box;

use mortise_sdk::{Message, Outcome, Preprocessor, RequestInfo, Result, Sampling};

const FLOOD_BYTES: usize = 8 << 20;

struct Hostile;

mortise_sdk::export!(preprocessor: Hostile);

impl Preprocessor for Hostile {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn process(
        &mut self,
        _request: &RequestInfo,
        messages: Vec<Message>,
        _sampling: &Sampling,
    ) -> Result<Outcome> {
        let said: String = messages.iter().map(Message::text).collect();
        if said.contains("<loop>") {
            let mut turns = 0_u64;
            loop {
                turns = black_box(turns.wrapping_add(1));
            }
        }
        if said.contains("<grow>") {
            let mut hoard = Vec::new();
            loop {
                // Untouched, so that memory runs out long before time does.
                hoard.push(black_box(Vec::<u8>::with_capacity(8 << 20)));
            }
        }
        assert!(!said.contains("<trap>"), "a trap was asked for");
        if said.contains("<flood>") {
            return Ok(Outcome::Respond(Message::assistant("x".repeat(FLOOD_BYTES))));
        }
        Ok(Outcome::Unchanged)
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn it_is_harmless_without_a_trigger() {
        let outcome = Harness::new().preprocess::<Hostile>(vec![Message::user("loop, grow")]);
        assert_eq!(outcome, Ok(Outcome::Unchanged));
    }
}
