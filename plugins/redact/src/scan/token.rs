//! JSON web tokens: base64url parts with dots between them, the first of which starts as `{"` does.

use super::starts_word;

/// Fewest characters of header and of payload; `{"alg":"none"}` has 19.
const PART_BYTES_MIN: usize = 10;

pub(super) fn scan(bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let mut at = 0;
    while at + 3 <= bytes.len() {
        let starts = &bytes[at..at + 3] == b"eyJ" && starts_word(bytes, at);
        let end = if starts { end(bytes, at) } else { at + 1 };
        if starts && parts(&bytes[at..end]) {
            // A last dot is the sentence's, or that of an empty signature, which is no secret.
            let dots = bytes[at..end].iter().rev().take_while(|byte| **byte == b'.').count();
            found(at, end - dots);
        }
        at = end;
    }
}

/// End of the run of base64url and dots; at least one character on.
fn end(bytes: &[u8], start: usize) -> usize {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    start + bytes[start..].iter().take_while(|byte| in_token(byte)).count()
}

/// Whether a run begins with a header and a payload, each long enough.
fn parts(run: &[u8]) -> bool {
    let mut parts = run.split(|byte| *byte == b'.').map(<[u8]>::len);
    let long = |part: Option<usize>| part.is_some_and(|bytes| bytes >= PART_BYTES_MIN);
    long(parts.next()) && long(parts.next())
}
