//! Calls of tools in what a model writes: text that comes in pieces to content and calls, the same however
//! it is cut. What does not read as a call stays content, character by character. Never runs a tool, and
//! does not know which tools there are.

mod scan;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stop::overlap;
use scan::{Scan, Scanned};

/// Most calls of one answer; what comes behind them stays content.
pub const CALLS_MAX: usize = 128;
/// Longest run of white space and separators beside a call that is not content, in bytes.
const BLANK_BYTES_MAX: usize = 64;
/// What begins and ends a call of Hermes.
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// What calls of Llama 3 may begin with.
const PYTHON_TAG: &str = "<|python_tag|>";

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolCallFormat {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` anywhere in the answer, as Hermes and
    /// Qwen write it.
    Hermes,
    /// An answer of nothing but `{"name": ..., "parameters": {...}}`, several with `;` between them, as
    /// Llama 3.1 and its successors write it.
    Llama3Json,
    /// A JSON array of `{"name": ..., "parameters": {...}}`, as answers are that must call.
    Array,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text for the reader.
    Content(String),
    /// A call, complete.
    Call {
        /// The function.
        name: String,
        /// A JSON object, as the model wrote it.
        arguments: String,
    },
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub struct ToolCallParser {
    format: ToolCallFormat,
    /// Text of which it is not yet known what it is.
    held: String,
    state: State,
    calls: usize,
    /// Whether what is held follows a call, so that white space in it may be no content.
    behind_call: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// Content, in which a call may begin.
    Text,
    /// A call's object, from `start` on in what is held.
    Object { start: usize, scan: Scan },
    /// The object of a call has ended at `end`; what closes the call is awaited.
    Closing { start: usize, end: usize },
    /// There are no calls any more.
    Plain,
}

#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: &'a RawValue,
}

impl ToolCallParser {
    /// At the beginning of an answer.
    #[must_use]
    pub fn new(format: ToolCallFormat) -> Self {
        Self { format, held: String::new(), state: State::Text, calls: 0, behind_call: false }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        self.held.push_str(text);
        self.read(false)
    }

    /// The answer has ended: what is still held is a call without its end mark, or content.
    pub fn finish(&mut self) -> Vec<Said> {
        self.read(true)
    }

    fn read(&mut self, is_end: bool) -> Vec<Said> {
        let mut out = Vec::new();
        while self.step(is_end, &mut out) {}
        out
    }

    /// Whether something changed, so that another step may change more.
    fn step(&mut self, is_end: bool, out: &mut Vec<Said>) -> bool {
        match &mut self.state {
            State::Plain => {
                self.content(self.held.len(), out);
                false
            }
            State::Text if self.calls >= CALLS_MAX => {
                self.state = State::Plain;
                true
            }
            State::Text if self.format == ToolCallFormat::Hermes => self.find_tag(is_end, out),
            State::Text => self.find_object(is_end, out),
            State::Object { start, scan } => {
                let start = *start;
                match scan.run(&self.held) {
                    Scanned::More if !is_end => false,
                    Scanned::More | Scanned::Invalid => self.fail(start, out),
                    Scanned::End(end) => self.object(start, end, out),
                }
            }
            State::Closing { start, end } => {
                let (start, end) = (*start, *end);
                self.close((start, end), is_end, out)
            }
        }
    }

    /// Looks for the tag that begins a call.
    fn find_tag(&mut self, is_end: bool, out: &mut Vec<Said>) -> bool {
        if let Some(at) = self.held.find(OPEN) {
            let text = without_blank(&self.held[..at]);
            // White space is no content beside a call, and nobody knows yet that this is one.
            self.content(text, out);
            let start = at - text + OPEN.len();
            self.state = State::Object { start, scan: Scan::from(start) };
            return true;
        }
        if is_end {
            self.rest(out);
            return false;
        }
        let safe = self.held.len() - overlap(&self.held, OPEN);
        self.content(without_blank(&self.held[..safe]), out);
        false
    }

    /// Looks for the next object where there may be nothing else.
    fn find_object(&mut self, is_end: bool, out: &mut Vec<Said>) -> bool {
        let separators: &[char] = match self.format {
            ToolCallFormat::Array => &['[', ']', ','],
            _ => &[';'],
        };
        let blank = |c: char| c.is_ascii_whitespace() || separators.contains(&c);
        let mut rest = self.held.trim_start_matches(blank);
        if self.format == ToolCallFormat::Llama3Json && self.calls == 0 {
            rest = rest.strip_prefix(PYTHON_TAG).unwrap_or(rest).trim_start();
        }
        let start = self.held.len() - rest.len();
        if start <= BLANK_BYTES_MAX && rest.starts_with('{') {
            self.state = State::Object { start, scan: Scan::from(start) };
            return true;
        }
        let may_go_on = rest.is_empty() || (self.calls == 0 && PYTHON_TAG.starts_with(rest));
        if start > BLANK_BYTES_MAX || !may_go_on {
            self.state = State::Plain;
            return true;
        }
        if is_end {
            self.rest(out);
        }
        false
    }

    /// An object is complete.
    fn object(&mut self, start: usize, end: usize, out: &mut Vec<Said>) -> bool {
        if self.format == ToolCallFormat::Hermes {
            self.state = State::Closing { start, end };
            return true;
        }
        match call(&self.held[start..end]) {
            Some(call) => self.called(call, end, out),
            None => self.fail(start, out),
        }
    }

    /// Waits for the tag that ends a call.
    fn close(&mut self, (start, end): (usize, usize), is_end: bool, out: &mut Vec<Said>) -> bool {
        let rest = self.held[end..].trim_ascii_start();
        let blank = self.held.len() - end - rest.len();
        let is_closed = rest.starts_with(CLOSE);
        if blank > BLANK_BYTES_MAX || (!is_closed && !CLOSE.starts_with(rest)) {
            return self.fail(start, out);
        }
        if !is_closed && !is_end {
            return false;
        }
        // The end of an answer closes a call as well.
        let length = match (is_closed, rest.is_empty()) {
            (true, _) => CLOSE.len(),
            (false, true) => 0,
            (false, false) => return self.fail(start, out),
        };
        match call(&self.held[start..end]) {
            Some(call) => self.called(call, end + blank + length, out),
            None => self.fail(start, out),
        }
    }

    fn called(&mut self, call: Said, end: usize, out: &mut Vec<Said>) -> bool {
        self.held.drain(..end);
        (self.state, self.behind_call) = (State::Text, true);
        self.calls += 1;
        out.push(call);
        true
    }

    /// What began as a call is none: its tag is content, and behind it one may begin.
    fn fail(&mut self, start: usize, out: &mut Vec<Said>) -> bool {
        self.state = match self.format {
            ToolCallFormat::Hermes => {
                self.content(start, out);
                State::Text
            }
            _ => State::Plain,
        };
        true
    }

    /// At the end: white space behind a call is no content.
    fn rest(&mut self, out: &mut Vec<Said>) {
        if self.behind_call && self.format != ToolCallFormat::Hermes {
            self.held.clear();
        }
        if self.behind_call && without_blank(&self.held) == 0 {
            self.held.clear();
        }
        self.content(self.held.len(), out);
    }

    /// So much of what is held is content.
    fn content(&mut self, length: usize, out: &mut Vec<Said>) {
        if length == 0 {
            return;
        }
        self.behind_call = false;
        let text: String = self.held.drain(..length).collect();
        match out.last_mut() {
            Some(Said::Content(before)) => before.push_str(&text),
            _ => out.push(Said::Content(text)),
        }
    }
}

/// Length of a text without the white space at its end, of which no more is left out than may stand
/// beside a call.
fn without_blank(text: &str) -> usize {
    let least = text.len().saturating_sub(BLANK_BYTES_MAX);
    text.trim_ascii_end().len().max(least)
}

/// The call that an object is, if it is one.
fn call(object: &str) -> Option<Said> {
    let Written { name, arguments } = serde_json::from_str(object).ok()?;
    let arguments = arguments.get();
    let is_call = !name.is_empty() && arguments.starts_with('{');
    is_call.then(|| Said::Call { name, arguments: arguments.to_owned() })
}

#[cfg(test)]
mod tests;
