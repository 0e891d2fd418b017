//! PEM private keys, from `-----BEGIN … PRIVATE KEY-----` to their end. A key that was cut short is
//! still a secret: without an end, everything that could be part of it goes.

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 64;

pub(super) fn scan(text: &str, found: &mut dyn FnMut(usize, usize)) {
    let mut from = 0;
    let mut has_end = true;
    while let Some(start) = text[from..].find(BEGIN).map(|at| from + at) {
        let Some(body) = label_end(text, start + BEGIN.len()) else {
            from = start + BEGIN.len();
            continue;
        };
        let end = if has_end { text[body..].find(END).map(|at| body + at) } else { None };
        has_end = end.is_some();
        let end = match end {
            Some(end) => label_end(text, end + END.len()).unwrap_or(end + END.len()),
            None => body + body_length(&text[body..]),
        };
        found(start, end);
        from = end;
    }
}

/// End of a label that names a private key, with its dashes.
fn label_end(text: &str, start: usize) -> Option<usize> {
    let bytes = &text.as_bytes()[start..];
    let bytes = &bytes[..bytes.len().min(LABEL_BYTES_MAX)];
    let dashes = bytes.windows(5).position(|window| window == b"-----")?;
    let is_key = bytes[..dashes].windows(11).any(|window| window == b"PRIVATE KEY");
    is_key.then_some(start + dashes + 5)
}

/// Base64, headers, white space, and the `\n` of a key inside a string.
fn body_length(text: &str) -> usize {
    let in_body = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-\\:, \t\r\n".contains(&byte);
    text.bytes().take_while(|byte| in_body(*byte)).count()
}
