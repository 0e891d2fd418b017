//! Expressions that stand in prose.

use super::expression::{EXPRESSION_BYTES_MAX, parse};
use super::lexer::{Kind, Operator, Token, tokens};
use super::{CalcError, Number};

/// Most bytes of a text that are searched.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most expressions that are found.
const FOUND_MAX: usize = 8;
/// Words before an expression that say it is meant as one.
const CUES: &[&str] = &["is", "calculate", "compute", "evaluate", "solve", "simplify", "of", "are"];

/// An expression in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// As it was written.
    pub(crate) text: String,
    pub(crate) value: Result<Number, CalcError>,
    /// Its bytes in the text.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The expressions of `text`, each with at least one operator, from left to right. What merely looks
/// like one (a date, a range, a telephone number) is left alone.
pub(crate) fn find(text: &str) -> Vec<Found> {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let tokens = tokens(text, true);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() && found.len() < FOUND_MAX {
        let run = tokens[at..].iter().take_while(|token| token.kind != Kind::Other);
        let run = run.take_while(|token| token.end - tokens[at].start <= EXPRESSION_BYTES_MAX);
        let run = &tokens[at..at + run.count()];
        match longest(run, text.len()) {
            Some((used, value)) if is_meant(text, &run[..used]) => {
                let (start, end) = (run[0].start, run[used - 1].end);
                found.push(Found { text: text[start..end].to_owned(), value, start, end });
                at += used;
            }
            Some((used, _)) => at += used,
            None => at += 1,
        }
    }
    found
}

/// The longest expression at the beginning of `run`: the number of its tokens, and its value.
fn longest(run: &[Token], end: usize) -> Option<(usize, Result<Number, CalcError>)> {
    let may_start = match run.first()?.kind {
        Kind::Number(_) | Kind::Open => true,
        Kind::Operator(Operator::Minus) => matches!(run.get(1)?.kind, Kind::Number(_)),
        _ => false,
    };
    if !may_start {
        return None;
    }
    // Cut from the end until it is one: `2 + 2 =` has no rest, `2 + 2 (and` has.
    let mut length = run.len();
    while length > 1 {
        match parse(&run[..length], end) {
            Ok(parsed) if parsed.tokens == length => return Some((length, Ok(parsed.value))),
            Ok(parsed) => length = parsed.tokens,
            // What comes after the place of the error does not cure it.
            Err(CalcError::Syntax(place, _)) => {
                let good = run.partition_point(|token| token.start < place);
                length = good.min(length - 1);
            }
            // Sound, but without a value.
            Err(error) => return Some((length, Err(error))),
        }
    }
    None
}

/// Whether somebody wants these tokens computed.
fn is_meant(text: &str, tokens: &[Token]) -> bool {
    let operators = tokens.iter().enumerate().filter_map(|(place, token)| match token.kind {
        Kind::Operator(operator) if place > 0 => Some((operator, token)),
        _ => None,
    });
    let (mut any, mut clear) = (false, false);
    for (operator, token) in operators {
        any = true;
        let spaced = text[..token.start].ends_with(char::is_whitespace)
            && text[token.end..].starts_with(char::is_whitespace);
        // `-` and `/` without spaces stand in dates, ranges and numbers of all kinds.
        clear |= spaced || !matches!(operator, Operator::Minus | Operator::Over);
    }
    any && (clear || is_asked(text, tokens))
}

/// Whether the text around the tokens asks for their value.
fn is_asked(text: &str, tokens: &[Token]) -> bool {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return false };
    let after = text[last.end..].trim_start();
    let before = text[..first.start].trim_end().trim_end_matches(':').to_ascii_lowercase();
    let word = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    after.starts_with('=') || CUES.contains(&word) || before.is_empty() && after.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &str)]) {
        let found: Vec<(String, String)> = find(text)
            .into_iter()
            .map(|found| {
                assert_eq!(text[found.start..found.end], found.text);
                let value = found.value.map_or_else(|e| e.to_string(), |v| v.to_string());
                (found.text, value)
            })
            .collect();
        let found: Vec<(&str, &str)> =
            found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn expressions_in_prose() {
        check("What is 12*13?", &[("12*13", "156")]);
        check("2+2", &[("2+2", "4")]);
        check("Compute (3 + 4) * 2, please.", &[("(3 + 4) * 2", "14")]);
        check("First 1 + 1, then 2 ^ 8.", &[("1 + 1", "2"), ("2 ^ 8", "256")]);
        check("What is 15% of 240?", &[("15% of 240", "36")]);
        check("12 times 13 plus 1", &[("12 times 13 plus 1", "157")]);
        check("A crate costs $12.50 x 4.", &[("$12.50 x 4", "50")]);
        check("Is it 7 divided by 2?", &[("7 divided by 2", "3.5")]);
        check("3x4 and 1,200 / 4", &[("3x4", "12"), ("1,200 / 4", "300")]);
        check("what is 10-3", &[("10-3", "7")]);
        check("10/4=", &[("10/4", "2.5")]);
        check("5 + (2", &[]);
        check("It is -3 * 5 (yes).", &[("-3 * 5", "-15")]);
        check("1 / 0 is what?", &[("1 / 0", "division by zero")]);
        check("(see 2 + 2)", &[("2 + 2", "4")]);
        check("a + 2 + 3", &[("2 + 3", "5")]);
    }

    #[test]
    fn what_is_no_arithmetic() {
        for text in [
            "",
            "no numbers",
            "I have 12 apples.",
            "on 2024-01-02",
            "on 12/31/2024 we met",
            "pages 3-5",
            "open 24/7",
            "call 555-1234 now",
            "wallet 0x348d + more",
            "version 1.2.3",
            "one of 12 ways",
            "+ - * /",
            "50% are gone",
            "the 3rd of 5",
            "-5 degrees",
            "(12)",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn bounds() {
        let many = "1 + 1. ".repeat(FOUND_MAX + 1);
        assert_eq!(find(&many).len(), FOUND_MAX);
        for piece in ["1+", "(", "((1+", "1 ", "-", "1,000", "x", "é", "1%", "of "] {
            // As long as is looked at, and longer.
            for found in find(&piece.repeat(40_000)) {
                assert!(found.text.len() <= EXPRESSION_BYTES_MAX);
            }
        }
    }
}
