//! From the text of an answer to its content and its calls of tools. Reads what postprocessors let
//! through; receipts keep the text as it was generated.

use request::{FinishReason, RequestId};
use tokenization::{Said, ToolCallFormat, ToolCallParser};

use super::error::ApiError;

/// How an answer is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All of it is content.
    #[default]
    Text,
    /// Calls stand in it; if not `parallel`, the first counts.
    Calls { format: ToolCallFormat, parallel: bool },
    /// It is the arguments of one call.
    Arguments { name: String },
}

/// An error of a request, which is bound by its tools rather than by a format.
pub(crate) fn named(mut error: ApiError, reading: &Reading) -> ApiError {
    if *reading != Reading::Text && error.param.as_deref() == Some("response_format") {
        error.param = Some("tools".to_owned());
    }
    error
}

/// What a piece of an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) content: String,
    pub(crate) calls: Vec<CallPart>,
}

/// A call, or more of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallPart {
    /// Counted from 0 in each choice.
    pub(crate) index: u32,
    /// Id and function, where the call begins.
    pub(crate) begun: Option<(String, String)>,
    /// More of the arguments.
    pub(crate) arguments: String,
}

/// Reads one choice.
#[derive(Clone, Debug)]
pub(crate) struct CallReader {
    /// Unguessable, and another one for each choice.
    id: String,
    kind: Kind,
    calls: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    Text,
    Calls { parser: ToolCallParser, parallel: bool, required: bool },
    Arguments { name: String },
}

impl CallReader {
    /// Of a choice of the request `id`. What a plugin answers in the model's place is content.
    pub(crate) fn new(reading: &Reading, id: &RequestId, choice: u32, by_plugin: bool) -> Self {
        let kind = match reading {
            _ if by_plugin => Kind::Text,
            Reading::Text => Kind::Text,
            Reading::Calls { format, parallel } => Kind::Calls {
                parser: ToolCallParser::new(*format),
                parallel: *parallel,
                required: *format == ToolCallFormat::Array,
            },
            Reading::Arguments { name } => Kind::Arguments { name: name.clone() },
        };
        let unique = id.as_str().rsplit('-').next().unwrap_or_default();
        Self { id: format!("call_{unique}{choice}"), kind, calls: 0 }
    }

    /// Whether all is content.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Text)
    }

    /// Takes the next piece of text.
    pub(crate) fn push(&mut self, text: String) -> Spoken {
        match &mut self.kind {
            Kind::Text => Spoken { content: text, calls: Vec::new() },
            Kind::Calls { parser, .. } => {
                let said = parser.push(&text);
                self.spoken(said)
            }
            Kind::Arguments { name } if !text.is_empty() => {
                let first = self.calls == 0;
                let begun = first.then(|| (format!("{}_0", self.id), name.clone()));
                self.calls = 1;
                let part = CallPart { index: 0, begun, arguments: text };
                Spoken { content: String::new(), calls: vec![part] }
            }
            Kind::Arguments { .. } => Spoken::default(),
        }
    }

    /// The choice has ended: what was held back, and the reason on the wire. An answer that is the
    /// arguments of a named function ends as any other, as the OpenAI API has it.
    pub(crate) fn finish(&mut self, reason: FinishReason) -> (Spoken, &'static str) {
        let spoken = match &mut self.kind {
            Kind::Calls { parser, .. } => {
                let said = parser.finish();
                self.spoken(said)
            }
            _ => Spoken::default(),
        };
        let called = matches!(self.kind, Kind::Calls { .. }) && self.calls > 0;
        match reason {
            FinishReason::Stop if called => (spoken, "tool_calls"),
            // A cancelled answer has nobody to read it.
            reason => (spoken, reason.as_str()),
        }
    }

    /// Reads a choice at once.
    pub(crate) fn whole(mut self, text: String, reason: FinishReason) -> (Spoken, &'static str) {
        let mut spoken = self.push(text);
        let (rest, reason) = self.finish(reason);
        spoken.content.push_str(&rest.content);
        spoken.calls.extend(rest.calls);
        (spoken, reason)
    }

    fn spoken(&mut self, said: Vec<Said>) -> Spoken {
        let Kind::Calls { parallel, required, .. } = self.kind else { return Spoken::default() };
        let mut spoken = Spoken::default();
        for said in said {
            match said {
                // What is left of an array that was cut off is of use to nobody.
                Said::Content(_) if required && self.calls > 0 => {}
                Said::Content(text) => spoken.content.push_str(&text),
                Said::Call { .. } if !parallel && self.calls > 0 => {}
                Said::Call { name, arguments } => {
                    let begun = Some((format!("{}_{}", self.id, self.calls), name));
                    spoken.calls.push(CallPart { index: self.calls, begun, arguments });
                    self.calls += 1;
                }
            }
        }
        spoken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reading: &Reading, pieces: &[&str], reason: FinishReason) -> (Spoken, &'static str) {
        let mut reader = CallReader::new(reading, &RequestId::new("chatcmpl", [7; 16]), 1, false);
        let mut all = Spoken::default();
        let mut add = |more: Spoken| {
            all.content.push_str(&more.content);
            for part in more.calls {
                match part.begun {
                    Some(_) => all.calls.push(part),
                    None => all.calls[part.index as usize].arguments.push_str(&part.arguments),
                }
            }
        };
        for piece in pieces {
            add(reader.push((*piece).to_owned()));
        }
        let (rest, reason) = reader.finish(reason);
        add(rest);
        (all, reason)
    }

    fn check(reading: &Reading, text: &str, expect: (&str, &[(&str, &str)], &str)) {
        for pieces in [vec![text], text.split_inclusive(' ').collect()] {
            let (spoken, reason) = read(reading, &pieces, FinishReason::Stop);
            let calls: Vec<(&str, &str)> = spoken
                .calls
                .iter()
                .map(|part| {
                    (part.begun.as_ref().expect("a call").1.as_str(), part.arguments.as_str())
                })
                .collect();
            assert_eq!((spoken.content.as_str(), calls.as_slice(), reason), expect, "{pieces:?}");
        }
    }

    #[test]
    fn each_reading() {
        let hermes = |parallel| Reading::Calls { format: ToolCallFormat::Hermes, parallel };
        let array = Reading::Calls { format: ToolCallFormat::Array, parallel: true };
        let named = Reading::Arguments { name: "f".to_owned() };
        let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        check(&Reading::Text, call, (call, &[], "stop"));
        check(&hermes(true), "no call", ("no call", &[], "stop"));
        check(
            &hermes(true),
            &format!("a {call} {call}"),
            ("a", &[("f", "{}"), ("f", "{}")], "tool_calls"),
        );
        check(&hermes(false), &format!("a {call} {call}"), ("a", &[("f", "{}")], "tool_calls"));
        check(&named, "{\"a\": 1}", ("", &[("f", "{\"a\": 1}")], "stop"));
        check(&named, "", ("", &[], "stop"));
        let one = "{\"name\": \"g\", \"parameters\": {}}";
        check(&array, &format!("[{one}, {one}]"), ("", &[("g", "{}"), ("g", "{}")], "tool_calls"));
        check(&array, &format!("[{one}, {{\"na"), ("", &[("g", "{}")], "tool_calls"));
    }

    #[test]
    fn ids_differ_and_other_reasons_stay() {
        let array = Reading::Calls { format: ToolCallFormat::Array, parallel: true };
        let text = "[{\"name\": \"g\", \"parameters\": {}}, {\"name\": \"g\", \"parameters\": {}}]";
        let (spoken, reason) = read(&array, &[text], FinishReason::Length);
        assert_eq!(reason, "length");
        let ids: Vec<String> =
            spoken.calls.into_iter().filter_map(|part| Some(part.begun?.0)).collect();
        assert_eq!(
            ids,
            [format!("call_{}1_0", "07".repeat(16)), format!("call_{}1_1", "07".repeat(16))]
        );
        let mut reader = CallReader::new(&array, &RequestId::new("x", [7; 16]), 0, true);
        assert!(reader.is_plain());
        assert_eq!(reader.push(text.to_owned()).content, text);
    }
}
