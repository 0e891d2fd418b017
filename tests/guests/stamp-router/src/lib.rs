//! A router whose version shows in who answers: the config key of its version (`"1.0.0"`), else the
//! key `adapter`, names the candidate that it chooses.

#![forbid(unsafe_code)]

use mortise_sdk::{Candidate, Decision, Message, RequestInfo, Result, Router, config, metrics};

const VERSION: &str = env!("CARGO_PKG_VERSION");

struct Stamp(Option<String>);

mortise_sdk::export!(router: Stamp);

impl Router for Stamp {
    fn new() -> Result<Self> {
        Ok(Self(config::get(VERSION).or_else(|| config::get("adapter"))))
    }

    fn route(
        &mut self,
        _request: &RequestInfo,
        _messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<Decision> {
        metrics::count("routed", 1);
        let chosen = candidates.iter().find(|candidate| Some(&candidate.model) == self.0.as_ref());
        Ok(chosen.map_or(Decision::Pass, |chosen| Decision::To(chosen.model.clone())))
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn the_version_chooses() {
        let check = |harness: Harness, expect: Decision| {
            assert_eq!(harness.route::<Stamp>(&[], &["a", "b"]), Ok(expect));
            assert_eq!(harness.counter("routed"), 1.0);
        };
        check(Harness::new(), Decision::Pass);
        check(Harness::new().config("adapter", "c"), Decision::Pass);
        check(Harness::new().config("adapter", "a"), Decision::To("a".into()));
        let by_version = Harness::new().config("adapter", "a").config(VERSION, "b");
        check(by_version, Decision::To("b".into()));
    }
}
