//! {description}

#![forbid(unsafe_code)]

use mortise_sdk::{Action, Postprocessor, RequestInfo, Result};

/// Lives for one stream, so what it holds belongs to that stream alone.
struct Plugin {
    /// White space that goes on only if something follows it.
    held: String,
}

mortise_sdk::export!(postprocessor: Plugin);

impl Postprocessor for Plugin {
    fn new() -> Result<Self> {
        Ok(Self {
            held: String::new(),
        })
    }

    fn open(&mut self, _request: &RequestInfo) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, text: String) -> Result<Action> {
        let nothing_held = self.held.is_empty();
        let mut out = std::mem::take(&mut self.held) + &text;
        self.held = out.split_off(out.trim_end().len());
        Ok(if out.is_empty() {
            Action::Hold
        } else if nothing_held && self.held.is_empty() {
            Action::Pass
        } else {
            Action::Replace(out)
        })
    }

    fn finish(&mut self, _finish_reason: &str) -> Result<String> {
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_sdk::testing::Harness;

    #[test]
    fn only_white_space_at_the_end_is_lost() {
        let check = |pieces: &[&str], expect: &str| {
            let harness = Harness::from_manifest(include_str!("../plugin.toml"));
            let read = harness.stream_all::<Plugin>(pieces.iter().copied());
            assert_eq!(read, Ok(expect.to_owned()), "{pieces:?}");
        };
        check(&["one ", " two", "\n", "\n"], "one  two");
        check(&["one"], "one");
        check(&[" ", "one"], " one");
        check(&[" ", "\n"], "");
    }
}
