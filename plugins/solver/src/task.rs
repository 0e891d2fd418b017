//! The user's task: the arithmetic that stands in it, and the prompt that goes to the model.

use mortise_sdk::{Message, Part, Role};

use crate::calculator::{self, Found};
use crate::facts::Facts;

/// What the model is told.
const INSTRUCTIONS: &str = "Solve the task step by step. To compute, write a line such as\n\
    calc: (3 + 4) * 2\n\
    and stop; you will be told the result. Use only numbers, + - * / ^ % and parentheses. \
    When you know the answer, write it after\nanswer:";
/// Words of a task that ask for nothing but its arithmetic.
const FILLERS: &[&str] = &[
    "a",
    "and",
    "are",
    "calculate",
    "can",
    "compute",
    "equal",
    "equals",
    "evaluate",
    "find",
    "for",
    "give",
    "hello",
    "hi",
    "how",
    "is",
    "it",
    "me",
    "much",
    "of",
    "please",
    "product",
    "result",
    "s",
    "solve",
    "sum",
    "tell",
    "the",
    "value",
    "what",
    "whats",
    "you",
];

/// The last user message, read.
pub(crate) struct Task {
    pub(crate) arithmetic: Vec<Found>,
    /// Whether it asks for nothing else.
    pub(crate) is_only_arithmetic: bool,
}

impl Task {
    pub(crate) fn read(messages: &[Message]) -> Self {
        let last = messages.iter().rev().find(|message| message.role == Role::User);
        let text = last.map(Message::text).unwrap_or_default();
        let arithmetic = calculator::find(&text);
        let is_only_arithmetic = !arithmetic.is_empty() && only_fillers(&text, &arithmetic);
        Self { arithmetic, is_only_arithmetic }
    }

    /// The conversation with the instructions and the facts. They join a system message that is
    /// there, for many templates take one at most, and only at the beginning.
    pub(crate) fn prompt(&self, mut messages: Vec<Message>, facts: &Facts) -> Vec<Message> {
        let mut text = INSTRUCTIONS.to_owned();
        if !facts.is_empty() {
            text += "\nThe calculator has already found:\n";
            text += &facts.lines();
        }
        match messages.first_mut() {
            Some(first) if first.role == Role::System => {
                first.parts.push(Part::Text(format!("\n\n{text}")));
            }
            _ => messages.insert(0, Message::system(text)),
        }
        messages
    }
}

/// Whether nothing but fillers stands around the expressions.
fn only_fillers(text: &str, arithmetic: &[Found]) -> bool {
    let mut around = String::new();
    let mut at = 0;
    for found in arithmetic {
        around.push_str(&text[at..found.start]);
        around.push(' ');
        at = found.end;
    }
    around.push_str(&text[at..]);
    let mut words = around.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.all(|word| FILLERS.contains(&word.to_ascii_lowercase().as_str()))
}
