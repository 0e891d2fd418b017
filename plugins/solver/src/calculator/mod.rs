//! Exact arithmetic over text: [`evaluate`] for an expression that must be one, [`find`] for those
//! that stand in prose. No input makes it panic, overflow, recurse deeper than a bound or take more
//! than time in proportion to a bounded length.

mod expression;
mod find;
mod lexer;
mod number;

pub(crate) use expression::evaluate;
pub(crate) use find::{Found, find};
pub(crate) use number::Number;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CalcError {
    /// It is longer than the bound, in bytes.
    TooLong(usize),
    /// Its parentheses are nested deeper than the bound.
    TooDeep,
    /// Something else was expected at this byte.
    Syntax(usize, &'static str),
    DivisionByZero,
    /// A number on the way does not fit into 128 bits.
    Overflow,
    /// The exponent is no whole number, or too large.
    Exponent,
}

impl std::fmt::Display for CalcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(f, "the expression is longer than {bytes} bytes"),
            Self::TooDeep => f.write_str("too many nested parentheses"),
            Self::Syntax(at, expected) => write!(f, "expected {expected} at character {}", at + 1),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Overflow => f.write_str("the numbers grow too large"),
            Self::Exponent => f.write_str("an exponent must be a whole number from -256 to 256"),
        }
    }
}
