//! Payment cards: 13 to 19 digits that start as cards do and pass Luhn's check, in one piece or in
//! groups.

use super::{ends_word, separator, starts_word};

/// Fewest and most digits.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// Most separators between two groups.
const SEPARATORS_MAX: usize = 2;

pub(super) fn scan(bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let mut at = 0;
    while at < bytes.len() {
        let starts = bytes[at].is_ascii_digit() && starts_word(bytes, at);
        let end = if starts { end(bytes, at) } else { None };
        if let Some(end) = end {
            found(at, end);
        }
        at = end.unwrap_or(at + 1);
    }
}

/// End of the longest card number that starts at `start`; groups that follow (an expiry date, a
/// security code) may or may not belong to it.
fn end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut digits, mut read) = ([0; 19], 0);
    let (mut at, mut longest) = (start, None);
    loop {
        while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            if read == digits.len() {
                return longest;
            }
            digits[read] = byte - b'0';
            read += 1;
            at += 1;
        }
        let number = &digits[..read];
        if DIGITS.contains(&read) && ends_word(bytes, at) && is_card(number) && luhn(number) {
            longest = Some(at);
        }
        for _ in 0..SEPARATORS_MAX {
            at += separator(bytes, at).unwrap_or(0);
        }
        if !bytes.get(at).is_some_and(u8::is_ascii_digit) {
            return longest;
        }
    }
}

/// Whether an issuer's numbers start so: 2221 to 2720, or 3, 4, 5 or 6.
fn is_card(digits: &[u8]) -> bool {
    let first = digits[..4].iter().fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    (2221..=2720).contains(&first) || (3000..7000).contains(&first)
}

/// Every second digit from the right is doubled, and the digits' sum ends in 0.
fn luhn(digits: &[u8]) -> bool {
    let doubled = |(place, digit): (usize, &u8)| match u32::from(*digit) * (1 + place as u32 % 2) {
        sum @ 10.. => sum - 9,
        sum => sum,
    };
    let sum: u32 = digits.iter().rev().enumerate().map(doubled).sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}
