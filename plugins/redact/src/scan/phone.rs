//! Telephone numbers, where their form gives them away: a `+` or `00` and a country, a national
//! number with its leading 0, or North America's 3-3-4. Ten digits in a row could be anything, and
//! are left alone.

use super::{ends_word, separator};

/// Most digits of a number (E.164), and what may stand before the country.
const DIGITS_MAX: usize = 15;
/// Most groups of digits.
const GROUPS_MAX: usize = 8;

/// A run of digit groups.
struct Number {
    digits: [u8; DIGITS_MAX + 3],
    /// Digits in all.
    count: usize,
    /// Digits in each group.
    groups: [usize; GROUPS_MAX],
    group_count: usize,
    dots_only: bool,
    end: usize,
}

pub(super) fn scan(bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let mut at = 0;
    while at < bytes.len() {
        let is_start = matches!(bytes[at], b'+' | b'(' | b'0'..=b'9') && may_start(bytes, at);
        let end = if is_start { end(bytes, at) } else { None };
        if let Some(end) = end {
            found(at, end);
        }
        at = end.unwrap_or(at + 1);
    }
}

/// Not within a word or a longer number. A `+` must stand right before its number, and not right
/// after another, where it is a sum.
fn may_start(bytes: &[u8], at: usize) -> bool {
    if bytes[at] == b'+' && !bytes.get(at + 1).is_some_and(|b| b.is_ascii_digit() || *b == b'(') {
        return false;
    }
    let Some(before) = at.checked_sub(1).map(|before| bytes[before]) else { return true };
    let inside = before.is_ascii_alphanumeric() || b"+_@".contains(&before);
    let after_number = b".-,".contains(&before) && at >= 2 && bytes[at - 2].is_ascii_digit();
    !(inside || after_number || bytes[at] == b'+' && before == b')')
}

fn end(bytes: &[u8], start: usize) -> Option<usize> {
    let plus = bytes[start] == b'+';
    let number = read(bytes, start + usize::from(plus))?;
    let digits = &number.digits[..number.count];
    let groups = &number.groups[..number.group_count];
    let is_phone = if plus {
        digits[0] != 0 && (8..=DIGITS_MAX).contains(&digits.len())
    } else if digits.starts_with(&[0, 0]) {
        digits[2] != 0 && (11..=DIGITS_MAX + 2).contains(&digits.len())
    } else if digits[0] == 0 {
        (10..=12).contains(&digits.len()) && is_national(groups, number.dots_only)
    } else {
        // 212-555-0123, with or without a 1 before it, never in one piece.
        matches!(groups, [3, 3, 4]) || matches!(groups, [1, 3, 3, 4]) && digits[0] == 1
    };
    (is_phone && ends_word(bytes, number.end)).then_some(number.end)
}

/// Neither 01 02 2024, whatever comes after it, nor a version; but pairs, as in France.
fn is_national(groups: &[usize], dots_only: bool) -> bool {
    let is_date = matches!(groups, [1 | 2, 1 | 2, 2 | 4, ..]);
    groups == [2; 5] || groups.len() == 1 || !is_date && !dots_only
}

/// Digit groups with separators, brackets and slashes between them.
fn read(bytes: &[u8], start: usize) -> Option<Number> {
    let mut number = Number {
        digits: [0; DIGITS_MAX + 3],
        count: 0,
        groups: [0; GROUPS_MAX],
        group_count: 0,
        dots_only: true,
        end: start,
    };
    let mut at = start;
    loop {
        let group_start = at;
        while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
            *number.digits.get_mut(number.count)? = byte - b'0';
            number.count += 1;
            at += 1;
        }
        if at > group_start {
            *number.groups.get_mut(number.group_count)? = at - group_start;
            number.group_count += 1;
            number.end = at;
        }
        let after = between(bytes, at);
        if !bytes.get(after).is_some_and(u8::is_ascii_digit) {
            return (number.count > 3).then_some(number);
        }
        if number.count > 0 && bytes[at] != b'.' {
            number.dots_only = false;
        }
        at = after;
    }
}

/// Skips at most three separators, of which no two are the same but spaces.
fn between(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    for _ in 0..3 {
        at += match bytes.get(at) {
            Some(b'(' | b')' | b'/') => 1,
            _ => separator(bytes, at).unwrap_or(0),
        };
    }
    at
}
