//! Exact fractions of 128-bit numbers, always in lowest terms with a positive denominator.

use std::fmt;

use super::CalcError;

/// Most digits after the point that are written out.
const DECIMALS_MAX: usize = 20;
/// Digits after the point of a number that has no end.
const DECIMALS_ROUNDED: usize = 12;
/// Largest exponent, either way.
const EXPONENT_MAX: i128 = 256;

/// A fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    numerator: i128,
    denominator: i128,
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    // Neither argument is ever i128::MIN, see `Number::new`.
    a as i128
}

impl Number {
    /// `numerator / denominator` in lowest terms. The least number of 128 bits has no opposite, so it
    /// is refused, and everything that is kept can be negated.
    pub(crate) fn new(numerator: i128, denominator: i128) -> Result<Self, CalcError> {
        if denominator == 0 {
            return Err(CalcError::DivisionByZero);
        }
        if numerator == i128::MIN || denominator == i128::MIN {
            return Err(CalcError::Overflow);
        }
        let common = gcd(numerator, denominator) * denominator.signum();
        Ok(Self { numerator: numerator / common, denominator: denominator / common })
    }

    pub(crate) fn whole(number: i128) -> Result<Self, CalcError> {
        Self::new(number, 1)
    }

    pub(crate) fn negated(self) -> Self {
        Self { numerator: -self.numerator, ..self }
    }

    pub(crate) fn plus(self, other: Self) -> Result<Self, CalcError> {
        let common = gcd(self.denominator, other.denominator);
        let (a, b) = (other.denominator / common, self.denominator / common);
        let left = self.numerator.checked_mul(a).ok_or(CalcError::Overflow)?;
        let right = other.numerator.checked_mul(b).ok_or(CalcError::Overflow)?;
        let sum = left.checked_add(right).ok_or(CalcError::Overflow)?;
        Self::new(sum, self.denominator.checked_mul(a).ok_or(CalcError::Overflow)?)
    }

    pub(crate) fn times(self, other: Self) -> Result<Self, CalcError> {
        let a = Self::new(self.numerator, other.denominator)?;
        let b = Self::new(other.numerator, self.denominator)?;
        let numerator = a.numerator.checked_mul(b.numerator).ok_or(CalcError::Overflow)?;
        let denominator = a.denominator.checked_mul(b.denominator).ok_or(CalcError::Overflow)?;
        Self::new(numerator, denominator)
    }

    pub(crate) fn over(self, other: Self) -> Result<Self, CalcError> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    /// `self` to the power of a whole number.
    pub(crate) fn to_the(self, exponent: Self) -> Result<Self, CalcError> {
        let times = exponent.numerator;
        if exponent.denominator != 1 || times.abs() > EXPONENT_MAX {
            return Err(CalcError::Exponent);
        }
        let base = if times < 0 { Self::new(self.denominator, self.numerator)? } else { self };
        let mut power = Self { numerator: 1, denominator: 1 };
        for _ in 0..times.abs() {
            power = power.times(base)?;
        }
        Ok(power)
    }

    /// Whether its decimal form is the number itself and not a rounded one.
    pub(crate) fn is_decimal(self) -> bool {
        self.decimals().is_some()
    }

    /// Digits after the point, if they come to an end soon enough.
    fn decimals(self) -> Option<usize> {
        let (mut rest, mut twos, mut fives) = (self.denominator, 0, 0);
        while rest % 2 == 0 {
            (rest, twos) = (rest / 2, twos + 1);
        }
        while rest % 5 == 0 {
            (rest, fives) = (rest / 5, fives + 1);
        }
        let digits = usize::max(twos, fives);
        (rest == 1 && digits <= DECIMALS_MAX).then_some(digits)
    }
}

impl fmt::Display for Number {
    /// Decimal: exact where that takes at most 20 digits after the point, else rounded to 12.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.decimals();
        let wanted = exact.unwrap_or(DECIMALS_ROUNDED);
        let denominator = self.denominator.unsigned_abs();
        let mut whole = self.numerator.unsigned_abs() / denominator;
        let mut rest = self.numerator.unsigned_abs() % denominator;
        let mut digits = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            // A denominator near the limit leaves no room for ten times the rest: fewer digits then.
            let Some(ten) = rest.checked_mul(10) else { break };
            digits.push((ten / denominator) as u8);
            rest = ten % denominator;
        }
        if exact.is_none() && rest >= denominator - rest {
            whole += u128::from(carry(&mut digits));
        }
        let is_zero = whole == 0 && digits.iter().all(|digit| *digit == 0);
        if self.numerator < 0 && !is_zero {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if !digits.is_empty() {
            f.write_str(".")?;
        }
        digits.iter().try_for_each(|digit| write!(f, "{digit}"))
    }
}

/// Adds 1 to the last digit; tells whether it went all the way up.
fn carry(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit < 9 {
            *digit += 1;
            return false;
        }
        *digit = 0;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(numerator: i128, denominator: i128) -> Number {
        Number::new(numerator, denominator).expect("a number")
    }

    #[test]
    fn decimals() {
        let check = |numerator, denominator, expect: &str| {
            assert_eq!(number(numerator, denominator).to_string(), expect);
        };
        check(6, 3, "2");
        check(1, -4, "-0.25");
        check(-1, 3, "-0.333333333333");
        check(2, 3, "0.666666666667");
        check(2_999_999_999_999_999, 3_000_000_000_000_000, "1.000000000000");
        check(-1, 3_000_000_000_000_000, "0.000000000000");
        check(1, 1 << 20, "0.00000095367431640625");
        check(1, 1 << 21, "0.000000476837");
        check(i128::MAX, 1, "170141183460469231731687303715884105727");
        check(1, i128::MAX, "0.000000000000");
        check(i128::MAX - 1, i128::MAX, "1");
    }

    #[test]
    fn limits() {
        let (max, one) = (number(i128::MAX, 1), number(1, 1));
        assert_eq!(max.plus(one), Err(CalcError::Overflow));
        assert_eq!(max.negated().plus(one.negated()), Err(CalcError::Overflow));
        assert_eq!(max.times(number(2, 1)), Err(CalcError::Overflow));
        assert_eq!(max.times(number(1, i128::MAX)), Ok(one));
        assert_eq!(number(2, 1).to_the(number(126, 1)), Number::whole(1 << 126));
        assert_eq!(number(2, 1).to_the(number(127, 1)), Err(CalcError::Overflow));
        assert_eq!(one.to_the(number(256, 1)), Ok(one));
        assert_eq!(one.to_the(number(257, 1)), Err(CalcError::Exponent));
        assert_eq!(one.to_the(number(1, 2)), Err(CalcError::Exponent));
        assert_eq!(number(0, 1).to_the(number(-1, 1)), Err(CalcError::DivisionByZero));
        assert_eq!(number(0, 1).to_the(number(0, 1)), Ok(one));
        assert_eq!(Number::whole(i128::MIN), Err(CalcError::Overflow));
    }
}
