//! {description}

#![forbid(unsafe_code)]

use mortise_sdk::{Agent, Message, RequestInfo, Result, Sampling, config, generate};
use serde::Deserialize;

/// `[config]` of `plugin.toml`, as the operator has overridden it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    model: String,
    improve: String,
}

struct Plugin {
    settings: Settings,
}

mortise_sdk::export!(agent: Plugin);

impl Agent for Plugin {
    fn new() -> Result<Self> {
        Ok(Self {
            settings: config::read()?,
        })
    }

    fn run(&mut self, _request: &RequestInfo, mut messages: Vec<Message>) -> Result<Message> {
        let draft = self.ask(&messages)?;
        messages.push(draft.clone());
        messages.push(Message::user(&self.settings.improve));
        match self.ask(&messages) {
            // The budget of the run went into the draft.
            Err(error) if error.code == "over-budget" => Ok(draft),
            better => better,
        }
    }
}

impl Plugin {
    fn ask(&self, messages: &[Message]) -> Result<Message> {
        let completion = generate::run(generate::Request {
            model: self.settings.model.clone(),
            messages: messages.to_vec(),
            sampling: Sampling::default(),
            attrs: Vec::new(),
        })?;
        Ok(completion.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_sdk::testing::Harness;

    fn harness() -> Harness {
        Harness::from_manifest(include_str!("../plugin.toml")).answers(["a draft", "an answer"])
    }

    #[test]
    fn the_draft_is_improved() {
        let harness = harness();
        let answer = harness
            .run::<Plugin>(vec![Message::user("Write.")])
            .expect("answers");
        assert_eq!(answer.text(), "an answer");
        assert_eq!(harness.requests()[1].messages[1].text(), "a draft");
    }

    #[test]
    fn without_tokens_for_more_the_draft_is_the_answer() {
        let answer = harness()
            .budget_tokens(5)
            .run::<Plugin>(vec![Message::user("Write.")]);
        assert_eq!(answer.expect("answers").text(), "a draft");
    }
}
