//! E-mail addresses: found at their `@`, then read to both sides.

/// Longest local part, in bytes (RFC 5321).
const LOCAL_BYTES_MAX: usize = 64;
/// Longest domain, in bytes.
const DOMAIN_BYTES_MAX: usize = 253;

pub(super) fn scan(text: &str, found: &mut dyn FnMut(usize, usize)) {
    for (at, _) in text.match_indices('@') {
        let (Some(start), Some(end)) = (local_start(text, at), domain_end(text, at + 1)) else {
            continue;
        };
        found(start, end);
    }
}

/// ASCII, and the letters of Latin, Greek and Cyrillic; scripts that write without spaces would drag
/// a sentence into the address.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || ('\u{c0}'..='\u{52f}').contains(&c) && c.is_alphanumeric()
}

fn local_start(text: &str, at: usize) -> Option<usize> {
    let in_local = |c: char| is_letter(c) || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let mut start = at;
    for (position, c) in text[..at].char_indices().rev() {
        if !in_local(c) || at - position > LOCAL_BYTES_MAX {
            break;
        }
        start = position;
    }
    // Punctuation before an address is the sentence's, as in `mail='ann@example.org'`.
    let local = text[start..at].trim_start_matches(|c| !is_letter(c) && c != '_' && c != '+');
    local.chars().any(|c| is_letter(c) || c == '_').then(|| at - local.len())
}

/// End of a domain of at least two labels, the last of letters only.
fn domain_end(text: &str, start: usize) -> Option<usize> {
    let in_domain = |(position, c): &(usize, char)| {
        *position < DOMAIN_BYTES_MAX && (is_letter(*c) || matches!(c, '.' | '-'))
    };
    let run = text[start..].char_indices().take_while(in_domain).last();
    let run = &text[start..start + run.map_or(0, |(position, c)| position + c.len_utf8())];
    let (mut end, mut at) = (None, start);
    for label in run.split('.') {
        let letters = label.trim_end_matches('-');
        if letters.is_empty() {
            break;
        }
        let is_top = letters.starts_with("xn--") || letters.chars().all(char::is_alphabetic);
        if at > start && is_top && letters.chars().nth(1).is_some() {
            end = Some(at + letters.len());
        }
        at += label.len() + 1;
    }
    end
}
