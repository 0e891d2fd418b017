//! An agent that solves a task in steps, with a calculator that does not guess.
//!
//! Arithmetic that stands in the task is computed first and handed to the model as facts. Then the
//! model is asked, at most `steps_max` times: a reply with lines `calc: <expression>` is answered with
//! their exact values, any other is the answer. A call that brings nothing new ends the run, so that a
//! model which repeats itself does not use up the budget.
//!
//! The answer always holds the value of the task's own arithmetic: where the model's words lack it, it
//! goes before them, so that even a model which cannot count gives an answer that is right. When the
//! model fails or runs out of tokens, the answer is what the calculator knows; when it knows nothing
//! either, the answer says so. It never runs code and never looks anything up.

#![forbid(unsafe_code)]

mod calculator;
mod facts;
mod reply;
mod settings;
mod task;

use mortise_sdk::{
    Agent, Error, Message, RequestInfo, Result, Sampling, config, generate, log, metrics,
};

use crate::facts::Facts;
use crate::reply::Reply;
use crate::settings::Settings;
use crate::task::Task;

struct Solver {
    settings: Settings,
}

mortise_sdk::export!(agent: Solver);

impl Agent for Solver {
    fn new() -> Result<Self> {
        let settings: Settings = config::read()?;
        settings.check()?;
        Ok(Self { settings })
    }

    fn run(&mut self, _request: &RequestInfo, messages: Vec<Message>) -> Result<Message> {
        let task = Task::read(&messages);
        let mut facts = Facts::default();
        for found in &task.arithmetic {
            facts.add(&found.text, found.value.clone(), true);
        }
        let said = match self.solve(task.prompt(messages, &facts), &mut facts) {
            Ok(said) => said,
            Err(error) if !facts.is_empty() || error.code == "over-budget" => {
                log::warn(&format!("the model failed: {error}"));
                Said::Nothing(Ending::of(&error))
            }
            Err(error) => return Err(error),
        };
        metrics::count("solved", u64::from(matches!(said, Said::Answer(_))));
        Ok(Message::assistant(answer(&task, &facts, said)))
    }
}

/// What came of asking the model.
enum Said {
    Answer(String),
    Nothing(Ending),
}

/// Why there is no answer.
enum Ending {
    Empty,
    Steps,
    Budget,
    Failed,
}

impl Ending {
    fn of(error: &Error) -> Self {
        if error.code == "over-budget" { Self::Budget } else { Self::Failed }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Empty => "the model gave no answer",
            Self::Steps => "no answer was found in the steps allowed",
            Self::Budget => "the token budget ran out before there was an answer",
            Self::Failed => "the model could not be asked",
        }
    }
}

impl Solver {
    /// Asks the model until it answers.
    fn solve(&self, mut messages: Vec<Message>, facts: &mut Facts) -> Result<Said> {
        for _ in 0..self.settings.steps_max {
            let left = generate::budget_tokens();
            if left == 0 {
                return Ok(Said::Nothing(Ending::Budget));
            }
            let completion = generate::run(generate::Request {
                model: self.settings.model.clone(),
                messages: messages.clone(),
                sampling: Sampling {
                    max_tokens: Some(self.settings.reply_tokens_max.min(left)),
                    temperature: Some(0.0),
                    ..Sampling::default()
                },
                attrs: Vec::new(),
            })?;
            metrics::count("steps", 1);
            let text = completion.message.text();
            let calls = match reply::parse(&text) {
                Reply::Answer("") => return Ok(Said::Nothing(Ending::Empty)),
                Reply::Answer(answer) => return Ok(Said::Answer(answer.to_owned())),
                Reply::Calls(calls) => calls,
            };
            let (mut results, mut any_new) = (Vec::new(), false);
            for call in calls {
                let value = calculator::evaluate(call);
                results.push(facts::line(call, &value));
                any_new |= facts.add(call, value, false);
            }
            if !any_new {
                return Ok(Said::Nothing(Ending::Steps));
            }
            messages.push(Message::assistant(text.trim()));
            messages.push(Message::user(results.join("\n")));
        }
        Ok(Said::Nothing(Ending::Steps))
    }
}

/// What the client reads.
fn answer(task: &Task, facts: &Facts, said: Said) -> String {
    match said {
        Said::Answer(text) => {
            let missing = facts.missing_from(&text);
            if missing.is_empty() {
                text
            } else if task.is_only_arithmetic {
                // There was nothing else to say, and it was not said.
                missing
            } else {
                format!("{missing}\n\n{text}")
            }
        }
        Said::Nothing(_) if task.is_only_arithmetic => facts.lines(),
        Said::Nothing(ending) if facts.is_empty() => {
            format!("I could not solve this: {}.", ending.as_str())
        }
        Said::Nothing(ending) => {
            format!("{}\n\nI could get no further: {}.", facts.lines(), ending.as_str())
        }
    }
}

#[cfg(test)]
mod tests;
