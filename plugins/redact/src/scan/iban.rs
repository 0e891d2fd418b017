//! IBANs: a country, the length that this country uses, and a checksum that holds.

use super::{ends_word, separator, starts_word};

/// Countries and the length of their IBANs, from the SWIFT registry.
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16),
    (b"BG", 22), (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22),
    (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20),
    (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22),
    (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HN", 28), (b"HR", 21),
    (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30),
    (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20),
    (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20),
    (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22),
    (b"RU", 33), (b"SA", 24), (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24),
    (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28), (b"TL", 23), (b"TN", 24), (b"TR", 26),
    (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];

pub(super) fn scan(bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let mut at = 0;
    while at + 15 <= bytes.len() {
        let end = if starts_word(bytes, at) { end(bytes, at) } else { None };
        if let Some(end) = end {
            found(at, end);
        }
        at = end.unwrap_or(at + 1);
    }
}

/// End of the IBAN that starts at `start`.
fn end(bytes: &[u8], start: usize) -> Option<usize> {
    let [a, b] = *bytes.get(start..start + 2)? else { return None };
    let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
    let length = LENGTHS.iter().find(|(known, _)| **known == country).map(|(_, length)| *length)?;
    let mut characters = [0; 34];
    let (mut at, mut read) = (start, 0);
    while read < length {
        let byte = *bytes.get(at)?;
        if byte.is_ascii_alphanumeric() {
            characters[read] = byte;
            read += 1;
            at += 1;
        } else {
            // One separator between two groups.
            at += separator(bytes, at)?;
            bytes.get(at).filter(|byte| byte.is_ascii_alphanumeric())?;
        }
    }
    let number = &characters[..length];
    let has_check_digits = number[2].is_ascii_digit() && number[3].is_ascii_digit();
    (has_check_digits && ends_word(bytes, at) && checksum(number) == 1).then_some(at)
}

/// The number mod 97, with the first four characters moved to the end and letters as 10 to 35.
fn checksum(characters: &[u8]) -> u32 {
    let moved = characters[4..].iter().chain(&characters[..4]);
    moved.fold(0, |sum, byte| match char::from(*byte).to_digit(36) {
        Some(value @ 10..) => (sum * 100 + value) % 97,
        Some(value) => (sum * 10 + value) % 97,
        None => sum,
    })
}
