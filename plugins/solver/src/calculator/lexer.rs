//! Text into numbers, operators and everything else.

use super::{CalcError, Number};

/// An operator of two numbers, or of one where a number may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Plus,
    Minus,
    Times,
    Over,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `Err` for one that does not fit.
    Number(Result<Number, ()>),
    Operator(Operator),
    Percent,
    Open,
    Close,
    /// Anything that is no arithmetic.
    Other,
}

/// A token: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Words that people write for operators, only between numbers.
const WORDS: &[(&str, Operator)] = &[
    ("plus", Operator::Plus),
    ("minus", Operator::Minus),
    ("times", Operator::Times),
    ("multiplied by", Operator::Times),
    ("x", Operator::Times),
    ("of", Operator::Times),
    ("divided by", Operator::Over),
    ("over", Operator::Over),
];

/// Splits `text`. With `prose`, words may be operators and a currency sign before a number is part of
/// it.
pub(crate) fn tokens(text: &str, prose: bool) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let after_word = text[..at].chars().next_back().is_some_and(is_word);
        let (kind, end) = if prose && "$€£".contains(c) && next_is_digit(text, at + c.len_utf8())
        {
            number(text, at + c.len_utf8())
        } else if c.is_ascii_digit() || c == '.' && next_is_digit(text, at + 1) {
            number(text, at)
        } else if prose && is_word(c) && (!after_word || is_product(text, at, tokens.last())) {
            word(text, at)
        } else {
            (sign(c), at + c.len_utf8())
        };
        tokens.push(Token { kind, start: at, end });
        at = end;
    }
    tokens
}

fn sign(c: char) -> Kind {
    match c {
        '+' => Kind::Operator(Operator::Plus),
        '-' | '−' | '–' => Kind::Operator(Operator::Minus),
        '*' | '×' | '·' => Kind::Operator(Operator::Times),
        '/' | '÷' => Kind::Operator(Operator::Over),
        '^' => Kind::Operator(Operator::Power),
        '%' => Kind::Percent,
        '(' => Kind::Open,
        ')' => Kind::Close,
        _ => Kind::Other,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn next_is_digit(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_some_and(u8::is_ascii_digit)
}

/// Whether an `x` right after a number and right before one is at `at`.
fn is_product(text: &str, at: usize, last: Option<&Token>) -> bool {
    let after_number = |token: &Token| token.end == at && matches!(token.kind, Kind::Number(_));
    last.is_some_and(after_number)
        && text[at..].starts_with(['x', 'X'])
        && next_is_digit(text, at + 1)
}

/// A word, which may be an operator.
fn word(text: &str, start: usize) -> (Kind, usize) {
    let rest = &text[start..];
    if rest.starts_with(['x', 'X']) && next_is_digit(text, start + 1) {
        let after_digit = start > 0 && text.as_bytes()[start - 1].is_ascii_digit();
        if after_digit {
            return (Kind::Operator(Operator::Times), start + 1);
        }
    }
    for (name, operator) in WORDS {
        let named = rest.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name));
        if named && !rest[name.len()..].starts_with(is_word) {
            return (Kind::Operator(*operator), start + name.len());
        }
    }
    (Kind::Other, start + rest.find(|c| !is_word(c)).unwrap_or(rest.len()))
}

/// A number with its thousands commas: `1,234.5`. One that runs on into a word, a second point or a
/// leading zero (`0x1f`, `3rd`, `1.2.3`, `007`) is something else.
fn number(text: &str, start: usize) -> (Kind, usize) {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut written = String::new();
    let mut end = start + digits(start);
    written.push_str(&text[start..end]);
    let first_group = (1..=3).contains(&written.len());
    while first_group && bytes.get(end) == Some(&b',') && digits(end + 1) == 3 {
        written.push_str(&text[end + 1..end + 4]);
        end += 4;
    }
    let leading_zero = written.len() > 1 && written.starts_with('0');
    let mut decimals = 0;
    if bytes.get(end) == Some(&b'.') && next_is_digit(text, end + 1) {
        decimals = digits(end + 1);
        written.push_str(&text[end + 1..=end + decimals]);
        end += 1 + decimals;
    }
    let rest = &text[end..];
    let point_again = rest.starts_with('.') && next_is_digit(text, end + 1);
    // `3x4`, but not `0x1f` or `3xl`.
    let product = rest.starts_with(['x', 'X']) && next_is_digit(text, end + 1) && written != "0";
    if leading_zero || point_again || rest.starts_with(is_word) && !product {
        let runs_on = |c: char| !is_word(c) && c != '.';
        return (Kind::Other, end + rest.find(runs_on).unwrap_or(rest.len()));
    }
    (Kind::Number(value(&written, decimals).map_err(|_| ())), end)
}

fn value(digits: &str, decimals: usize) -> Result<Number, CalcError> {
    let numerator: i128 = digits.parse().map_err(|_| CalcError::Overflow)?;
    let power = u32::try_from(decimals).ok().and_then(|decimals| 10_i128.checked_pow(decimals));
    Number::new(numerator, power.ok_or(CalcError::Overflow)?)
}
