//! What a reply of the model asks for: lines `calc: <expression>`, or an answer.

/// What a line that calls the calculator begins with.
pub(crate) const CALL: &str = "calc:";
/// What the line of the answer may begin with.
const ANSWER: &str = "answer:";
/// Most calls of one reply; the model sees the results of these first.
const CALLS_MAX: usize = 8;

/// A reply, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// Expressions to compute.
    Calls(Vec<&'a str>),
    /// The text for the client, which may be empty.
    Answer(&'a str),
}

/// A reply with a call is one, whatever else it says: an answer beside it was written before the
/// result was known.
pub(crate) fn parse(text: &str) -> Reply<'_> {
    let calls: Vec<&str> = text.lines().filter_map(call).take(CALLS_MAX).collect();
    if !calls.is_empty() {
        return Reply::Calls(calls);
    }
    // `answer:` on a line of its own or at its beginning: what comes before is thinking aloud.
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(rest) = strip(line.trim_start(), ANSWER) {
            let answer_start = at + line.len() - rest.len();
            return Reply::Answer(text[answer_start..].trim());
        }
        at += line.len();
    }
    Reply::Answer(text.trim())
}

/// The expression of a line that is a call and nothing else.
fn call(line: &str) -> Option<&str> {
    let rest = strip(line.trim(), CALL)?.trim();
    (!rest.is_empty()).then_some(rest)
}

/// `text` without `prefix`, in any case.
fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let calls = |text: &str, expect: &[&str]| {
            assert_eq!(parse(text), Reply::Calls(expect.to_vec()), "{text}");
        };
        calls("calc: 2 + 2", &["2 + 2"]);
        calls("I need two things.\n  CALC:1*2 \ncalc: 3*4\nanswer: 5", &["1*2", "3*4"]);
        calls("calc: nonsense", &["nonsense"]);
        calls(&"calc: 1\n".repeat(CALLS_MAX + 1), &["1"; CALLS_MAX]);
        let answer = |text: &str, expect: &str| {
            assert_eq!(parse(text), Reply::Answer(expect), "{text}");
        };
        answer("", "");
        answer(" \n", "");
        answer("It is 4.", "It is 4.");
        answer("answer: 4", "4");
        answer("First, think.\n Answer:\n4\nexactly", "4\nexactly");
        answer("calc:", "calc:");
        answer("use calc: 2 + 2", "use calc: 2 + 2");
        answer("the answer: 4", "the answer: 4");
        answer("é", "é");
    }
}
