//! {description}

#![forbid(unsafe_code)]

use mortise_sdk::{Candidate, Decision, Message, RequestInfo, Result, Role, Router, config};
use serde::Deserialize;

/// `[config]` of `plugin.toml`, as the operator has overridden it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    words: Vec<String>,
    adapter: String,
}

struct Plugin {
    settings: Settings,
}

mortise_sdk::export!(router: Plugin);

impl Router for Plugin {
    fn new() -> Result<Self> {
        Ok(Self {
            settings: config::read()?,
        })
    }

    fn route(
        &mut self,
        _request: &RequestInfo,
        messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<Decision> {
        let last = messages
            .iter()
            .rev()
            .find(|message| message.role == Role::User);
        let text = last.map(Message::text).unwrap_or_default().to_lowercase();
        let Settings { words, adapter } = &self.settings;
        let is_meant = words.iter().any(|word| text.contains(&word.to_lowercase()));
        let is_there = candidates
            .iter()
            .any(|candidate| candidate.model == *adapter);
        Ok(if is_meant && is_there {
            Decision::To(adapter.clone())
        } else {
            Decision::Pass
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_sdk::testing::Harness;

    #[test]
    fn words_choose_the_adapter() {
        let check = |text: &str, candidates: &[&str], expect: Decision| {
            let harness = Harness::from_manifest(include_str!("../plugin.toml"))
                .config("words", vec!["invoice"])
                .config("adapter", "billing");
            assert_eq!(
                harness.route::<Plugin>(&[Message::user(text)], candidates),
                Ok(expect)
            );
        };
        check(
            "My Invoice is wrong.",
            &["billing"],
            Decision::To("billing".to_owned()),
        );
        check("My Invoice is wrong.", &["other"], Decision::Pass);
        check("Hello.", &["billing"], Decision::Pass);
    }
}
