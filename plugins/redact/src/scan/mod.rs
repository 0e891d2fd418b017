//! What looks like a secret or personal data. Every scanner reads its text once and looks a bounded
//! distance ahead; none allocates for a text without finds.

mod card;
mod email;
mod iban;
mod key;
mod pem;
mod phone;
mod token;

use serde::Deserialize;

/// A kind of find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Category {
    Email,
    Phone,
    Iban,
    Card,
    ApiKey,
    Jwt,
    PrivateKey,
}

impl Category {
    /// As settings and placeholders spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::ApiKey => "api-key",
            Self::Jwt => "jwt",
            Self::PrivateKey => "private-key",
        }
    }

    /// Name of its counter.
    pub(crate) fn metric(self) -> &'static str {
        match self {
            Self::Email => "redacted_email",
            Self::Phone => "redacted_phone",
            Self::Iban => "redacted_iban",
            Self::Card => "redacted_card",
            Self::ApiKey => "redacted_api_key",
            Self::Jwt => "redacted_jwt",
            Self::PrivateKey => "redacted_private_key",
        }
    }

    fn scan(self, text: &str, found: &mut dyn FnMut(usize, usize)) {
        let bytes = text.as_bytes();
        match self {
            Self::Email => email::scan(text, found),
            Self::Phone => phone::scan(bytes, found),
            Self::Iban => iban::scan(bytes, found),
            Self::Card => card::scan(bytes, found),
            Self::ApiKey => key::scan(bytes, found),
            Self::Jwt => token::scan(bytes, found),
            Self::PrivateKey => pem::scan(text, found),
        }
    }
}

/// A find: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Find {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) category: Category,
}

/// All finds, from left to right. Those that overlap become one, of the category of the longest: what
/// any scanner found must go.
pub(crate) fn find(text: &str, categories: &[Category]) -> Vec<Find> {
    let mut finds = Vec::new();
    for category in categories {
        category.scan(text, &mut |start, end| finds.push(Find { start, end, category: *category }));
    }
    finds.sort_unstable_by_key(|find| (find.start, std::cmp::Reverse(find.end), find.category));
    let mut merged: Vec<Find> = Vec::with_capacity(finds.len());
    // Length of the find that gave the last of `merged` its category.
    let mut longest = 0;
    for find in finds {
        let length = find.end - find.start;
        match merged.last_mut() {
            Some(last) if find.start < last.end => {
                if length > longest {
                    (longest, last.category) = (length, find.category);
                }
                last.end = last.end.max(find.end);
            }
            _ => {
                longest = length;
                merged.push(find);
            }
        }
    }
    merged
}

/// Whether nothing alphanumeric stands before `at`.
fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !is_word(bytes[at - 1])
}

/// Whether nothing alphanumeric stands at `at`.
fn ends_word(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| !is_word(*byte))
}

/// Letters, digits and every byte of a character beyond ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Length of what people put between groups of digits: a space of any width, a hyphen or dash, or a
/// dot.
fn separator(bytes: &[u8], at: usize) -> Option<usize> {
    match &bytes[at.min(bytes.len())..] {
        [b' ' | b'-' | b'.' | b'\t', ..] => Some(1),
        // No-break space.
        [0xc2, 0xa0, ..] => Some(2),
        // Hyphens, dashes and minus; thin and narrow spaces.
        [0xe2, 0x80, 0x90..=0x95 | 0x89 | 0xaf, ..] | [0xe2, 0x88, 0x92, ..] => Some(3),
        _ => None,
    }
}
