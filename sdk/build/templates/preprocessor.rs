//! {description}

#![forbid(unsafe_code)]

use mortise_sdk::{
    Message, Outcome, Preprocessor, Reject, RequestInfo, Result, Role, Sampling, config,
};
use serde::Deserialize;

/// `[config]` of `plugin.toml`, as the operator has overridden it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    system: String,
    blocked: Vec<String>,
}

struct Plugin {
    settings: Settings,
}

mortise_sdk::export!(preprocessor: Plugin);

impl Preprocessor for Plugin {
    fn new() -> Result<Self> {
        Ok(Self {
            settings: config::read()?,
        })
    }

    fn process(
        &mut self,
        _request: &RequestInfo,
        mut messages: Vec<Message>,
        _sampling: &Sampling,
    ) -> Result<Outcome> {
        let Settings { system, blocked } = &self.settings;
        for word in blocked {
            if messages.iter().any(|message| message.text().contains(word)) {
                let message = format!("`{word}` is not talked about here");
                return Ok(Outcome::Reject(Reject::new(422, "blocked-word", message)));
            }
        }
        if system.is_empty() || messages.iter().any(|message| message.role == Role::System) {
            return Ok(Outcome::Unchanged);
        }
        messages.insert(0, Message::system(system));
        Ok(Outcome::Change {
            messages,
            sampling: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_sdk::testing::Harness;

    fn harness() -> Harness {
        Harness::from_manifest(include_str!("../plugin.toml"))
    }

    #[test]
    fn a_system_message_is_added_where_there_is_none() {
        let harness = harness().config("system", "Be brief.");
        let user = Message::user("Hello.");
        let with_system = vec![Message::system("Be brief."), user.clone()];
        let expect = Outcome::Change {
            messages: with_system.clone(),
            sampling: None,
        };
        assert_eq!(harness.preprocess::<Plugin>(vec![user]), Ok(expect));
        assert_eq!(
            harness.preprocess::<Plugin>(with_system),
            Ok(Outcome::Unchanged)
        );
    }

    #[test]
    fn blocked_words_are_refused() {
        let harness = harness().config("blocked", vec!["merger"]);
        let outcome = harness.preprocess::<Plugin>(vec![Message::user("When is the merger?")]);
        assert!(matches!(outcome, Ok(Outcome::Reject(reject)) if reject.status == 422));
        let outcome = harness.preprocess::<Plugin>(vec![Message::user("Hello.")]);
        assert_eq!(outcome, Ok(Outcome::Unchanged));
    }
}
