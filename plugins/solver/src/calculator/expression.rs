//! The grammar, by recursive descent:
//!
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = power { ("*" | "/") power }
//! power   = "-" power | "+" power | postfix [ "^" power ]
//! postfix = atom { "%" }
//! atom    = number | "(" sum ")"
//! ```

use super::lexer::{Kind, Operator, Token, tokens};
use super::{CalcError, Number};

/// Longest expression, in bytes.
pub(super) const EXPRESSION_BYTES_MAX: usize = 512;
/// Deepest nesting of parentheses, signs and powers.
const DEPTH_MAX: usize = 32;

/// The value of an expression that is the whole of `text`.
pub(crate) fn evaluate(text: &str) -> Result<Number, CalcError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(CalcError::TooLong(EXPRESSION_BYTES_MAX));
    }
    let tokens = tokens(text, false);
    let parsed = parse(&tokens, text.len())?;
    match tokens.get(parsed.tokens) {
        None => Ok(parsed.value),
        Some(token) => Err(CalcError::Syntax(token.start, "an operator or the end")),
    }
}

/// What the beginning of a list of tokens is worth.
pub(super) struct Parsed {
    pub(super) value: Number,
    /// Tokens that were used.
    pub(super) tokens: usize,
}

/// Reads as many tokens as make an expression; `end` is where the text ends.
pub(super) fn parse(tokens: &[Token], end: usize) -> Result<Parsed, CalcError> {
    let mut parser = Parser { tokens, at: 0, end, depth: 0 };
    let value = parser.sum()?;
    Ok(Parsed { value, tokens: parser.at })
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    fn operator(&mut self, among: &[Operator]) -> Option<Operator> {
        match self.peek() {
            Some(Kind::Operator(operator)) if among.contains(&operator) => {
                self.at += 1;
                Some(operator)
            }
            _ => None,
        }
    }

    fn refuse<T>(&self, expected: &'static str) -> Result<T, CalcError> {
        let at = self.tokens.get(self.at).map_or(self.end, |token| token.start);
        Err(CalcError::Syntax(at, expected))
    }

    /// One level deeper, within the bound.
    fn deeper(
        &mut self,
        rule: impl FnOnce(&mut Self) -> Result<Number, CalcError>,
    ) -> Result<Number, CalcError> {
        if self.depth == DEPTH_MAX {
            return Err(CalcError::TooDeep);
        }
        self.depth += 1;
        let value = rule(self);
        self.depth -= 1;
        value
    }

    fn sum(&mut self) -> Result<Number, CalcError> {
        let mut value = self.product()?;
        while let Some(operator) = self.operator(&[Operator::Plus, Operator::Minus]) {
            let other = self.product()?;
            let is_plus = operator == Operator::Plus;
            value = value.plus(if is_plus { other } else { other.negated() })?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Number, CalcError> {
        let mut value = self.power()?;
        while let Some(operator) = self.operator(&[Operator::Times, Operator::Over]) {
            let other = self.power()?;
            value =
                if operator == Operator::Times { value.times(other) } else { value.over(other) }?;
        }
        Ok(value)
    }

    fn power(&mut self) -> Result<Number, CalcError> {
        if let Some(sign) = self.operator(&[Operator::Plus, Operator::Minus]) {
            let value = self.deeper(Self::power)?;
            return Ok(if sign == Operator::Minus { value.negated() } else { value });
        }
        let base = self.postfix()?;
        match self.operator(&[Operator::Power]) {
            Some(_) => base.to_the(self.deeper(Self::power)?),
            None => Ok(base),
        }
    }

    fn postfix(&mut self) -> Result<Number, CalcError> {
        let mut value = self.atom()?;
        while self.peek() == Some(Kind::Percent) {
            self.at += 1;
            value = value.over(Number::whole(100)?)?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<Number, CalcError> {
        match self.peek() {
            Some(Kind::Number(number)) => {
                self.at += 1;
                number.map_err(|()| CalcError::Overflow)
            }
            Some(Kind::Open) => {
                self.at += 1;
                let value = self.deeper(Self::sum)?;
                if self.peek() != Some(Kind::Close) {
                    return self.refuse("`)`");
                }
                self.at += 1;
                Ok(value)
            }
            _ => self.refuse("a number or `(`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, &str>) {
        let found = evaluate(text).map(|value| value.to_string()).map_err(|e| e.to_string());
        match (&found, expect) {
            (Ok(value), Ok(expect)) => assert_eq!(value, expect, "{text}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
            _ => panic!("{text}: {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn values() {
        for (text, expect) in [
            ("1", "1"),
            ("2 + 3 * 4", "14"),
            ("(2 + 3) * 4", "20"),
            ("10 - 3 - 2", "5"),
            ("64 / 4 / 2", "8"),
            ("0.1 + 0.2", "0.3"),
            (".5 * 8", "4"),
            ("1 / 3", "0.333333333333"),
            ("1 / 3 * 3", "1"),
            ("2 ^ 10", "1024"),
            ("2 ^ 3 ^ 2", "512"),
            ("-2 ^ 2", "-4"),
            ("(-2) ^ 2", "4"),
            ("2 ^ -2", "0.25"),
            ("2 * -3", "-6"),
            ("--3", "3"),
            ("5 - -3", "8"),
            ("15% * 240", "36"),
            ("1,234,567 + 1", "1234568"),
            ("1,234.5 * 2", "2469"),
            ("6 × 7 − 2 ÷ 4", "41.5"),
            ("3 \t*\n3", "9"),
            ("123456789012345678 * 987654321098765432", "121932631137021794322511812221002896"),
        ] {
            check(text, Ok(expect));
        }
    }

    #[test]
    fn errors() {
        for (text, part) in [
            ("", "expected a number or `(` at character 1"),
            ("2 +", "expected a number or `(` at character 4"),
            ("2 3", "expected an operator or the end at character 3"),
            ("(1 + 2", "expected `)` at character 7"),
            ("1 + 2)", "expected an operator or the end at character 6"),
            ("1 / 0", "division by zero"),
            ("1 / (2 - 2)", "division by zero"),
            ("0 ^ -1", "division by zero"),
            ("10 ^ 39", "too large"),
            ("9 ^ 9 ^ 9", "exponent"),
            ("2 ^ 0.5", "exponent"),
            ("999999999999999999999999999999999999999", "too large"),
            ("0.0000000000000000000000000000000000000001", "too large"),
            ("two + 2", "expected a number"),
            ("1.2.3", "expected a number"),
            ("0x10", "expected a number"),
            ("007", "expected a number"),
            ("2 plus 2", "expected an operator"),
            ("$5", "expected a number"),
            ("1e5", "expected a number"),
        ] {
            check(text, Err(part));
        }
    }

    #[test]
    fn bounds() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        check(&nested(DEPTH_MAX), Ok("1"));
        check(&nested(DEPTH_MAX + 1), Err("nested"));
        check(&format!("{}1", "-".repeat(DEPTH_MAX)), Ok("1"));
        check(&format!("{}1", "-".repeat(DEPTH_MAX + 1)), Err("nested"));
        check(&format!("{}1", "1^".repeat(DEPTH_MAX)), Ok("1"));
        check(&format!("{}1", "1^".repeat(DEPTH_MAX + 1)), Err("nested"));
        let long = format!("1{}", "+1".repeat(255));
        check(&format!("{long} "), Ok("256"));
        check(&format!("{long}  "), Err("longer than 512 bytes"));
    }
}
