//! A postprocessor whose version shows at both ends of a stream: `[post <version>]` before the first
//! text and again after the last.

#![forbid(unsafe_code)]

use mortise_sdk::{Action, Postprocessor, RequestInfo, Result};

const STAMP: &str = concat!("[post ", env!("CARGO_PKG_VERSION"), "]");

struct Stamp {
    started: bool,
}

mortise_sdk::export!(postprocessor: Stamp);

impl Postprocessor for Stamp {
    fn new() -> Result<Self> {
        Ok(Self { started: true })
    }

    fn open(&mut self, _request: &RequestInfo) -> Result<()> {
        self.started = false;
        Ok(())
    }

    fn push(&mut self, text: String) -> Result<Action> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(Action::Pass);
        }
        Ok(Action::Replace(format!("{STAMP}{text}")))
    }

    fn finish(&mut self, _finish_reason: &str) -> Result<String> {
        Ok(STAMP.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn both_ends_are_stamped() {
        let check = |pieces: &[&str], expect: String| {
            let read = Harness::new().stream_all::<Stamp>(pieces.iter().copied());
            assert_eq!(read, Ok(expect));
        };
        check(&["a", "b", "c"], format!("{STAMP}abc{STAMP}"));
        check(&[], STAMP.to_owned());
    }
}
