//! Where a JSON object in a growing text ends: each byte is looked at once. Never says that an object is
//! well formed; it only gives up early on what can't be.

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 96;

/// How far a scan has come.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// What a scan has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The object goes on.
    More,
    /// It ends before this byte.
    End(usize),
    /// It is none.
    Invalid,
}

impl Scan {
    /// Of an object that begins at `at`, white space before it aside.
    pub(super) fn from(at: usize) -> Self {
        Self { at, depth: 0, in_string: false, escaped: false }
    }

    /// Goes on to the end of the object or of `text`, which begins with what it began with before.
    pub(super) fn run(&mut self, text: &str) -> Scanned {
        while let Some(byte) = text.as_bytes().get(self.at) {
            self.at += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    0..0x20 => return Scanned::Invalid,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'{' if self.depth < DEPTH_MAX => self.depth += 1,
                _ if self.depth == 0 => return Scanned::Invalid,
                b'[' if self.depth < DEPTH_MAX => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scanned::End(self.at);
                    }
                }
                b'"' => self.in_string = true,
                b':' | b',' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' => {}
                _ => return Scanned::Invalid,
            }
        }
        Scanned::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_object_ends() {
        let check = |text: &str, expect: Scanned| {
            assert_eq!(Scan::from(0).run(text), expect, "{text}");
            let mut scan = Scan::from(0);
            let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
            let found =
                ends.map(|end| scan.run(&text[..end])).find(|found| *found != Scanned::More);
            assert_eq!(found.unwrap_or(Scanned::More), expect, "{text}, byte by byte");
        };
        check("{}", Scanned::End(2));
        check(" {\"a\": [1, {}], \"b\": \"}\\\"}\"} x", Scanned::End(28));
        check("{\"é\\\\\"}", Scanned::End(8));
        check("{\"a", Scanned::More);
        check("", Scanned::More);
        check("x{}", Scanned::Invalid);
        check("[{}]", Scanned::Invalid);
        check("{<", Scanned::Invalid);
        check("{\"a\nb\"}", Scanned::Invalid);
        let nested = |depth: usize| {
            format!("{}{}", "{\"a\":".repeat(depth), "0".to_owned() + &"}".repeat(depth))
        };
        check(&nested(DEPTH_MAX), Scanned::End(nested(DEPTH_MAX).len()));
        check(&nested(DEPTH_MAX + 1), Scanned::Invalid);
    }
}
