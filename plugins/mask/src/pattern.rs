//! Patterns: a sequence of characters and classes, each with a bounded repeat.

/// Longest match, in characters: what a stream may have to hold.
pub(crate) const MATCH_CHARS_MAX: usize = 256;

/// What one character may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// This character; in lower case where case makes no difference.
    Char(char),
    Digit,
    Word,
    Space,
    Any,
}

/// A class, at least `min` and at most `max` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    class: Class,
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// A compiled word or pattern.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) items: Vec<Item>,
    ignore_case: bool,
    /// Whether no letter or digit may stand beside a match.
    pub(crate) whole: bool,
}

impl Pattern {
    /// `word`, letter by letter.
    pub(crate) fn word(word: &str, ignore_case: bool, whole: bool) -> Result<Self, String> {
        let item = |c| Item { class: Class::Char(fold(c, ignore_case)), min: 1, max: 1 };
        Self { items: word.chars().map(item).collect(), ignore_case, whole }.checked()
    }

    /// A pattern as `plugin.toml` describes them.
    pub(crate) fn parse(text: &str, ignore_case: bool) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let class = match c {
                '.' => Class::Any,
                '\\' => match rest.next() {
                    Some('d') => Class::Digit,
                    Some('w') => Class::Word,
                    Some('s') => Class::Space,
                    Some(c) if c.is_alphanumeric() => return Err(format!("there is no \\{c}")),
                    Some(c) => Class::Char(c),
                    None => return Err("a backslash at the end".to_owned()),
                },
                '*' | '+' | '?' | '[' | ']' | '(' | ')' | '|' | '^' | '$' | '{' | '}' => {
                    return Err(format!(
                        "`{c}` means nothing here; write `\\{c}` for the character"
                    ));
                }
                c => Class::Char(fold(c, ignore_case)),
            };
            let (min, max) = repeat(&mut rest)?;
            items.push(Item { class, min, max });
        }
        Self { items, ignore_case, whole: false }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.items.iter().all(|item| item.min == 0) {
            return Err("it would match nothing at all".to_owned());
        }
        let longest: usize = self.items.iter().map(|item| item.max).sum();
        if longest > MATCH_CHARS_MAX {
            return Err(format!("it may match {longest} characters, more than {MATCH_CHARS_MAX}"));
        }
        Ok(self)
    }

    /// Number of places that a thread can be in.
    pub(crate) fn states(&self) -> usize {
        self.items.iter().map(|item| item.max).sum::<usize>() + 1
    }

    /// Whether item `item` takes `c`.
    pub(crate) fn takes(&self, item: usize, c: char) -> bool {
        match self.items[item].class {
            Class::Char(expected) => fold(c, self.ignore_case) == expected,
            Class::Digit => c.is_ascii_digit(),
            Class::Word => is_word(c),
            Class::Space => c.is_whitespace(),
            Class::Any => true,
        }
    }
}

/// Letters, digits and `_`.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lower case, for characters that have one of a single character.
fn fold(c: char, ignore_case: bool) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(lower), None) if ignore_case => lower,
        _ => c,
    }
}

/// `{n}` or `{n,m}`, if it comes next; else once.
fn repeat(rest: &mut std::str::Chars<'_>) -> Result<(usize, usize), String> {
    let Some(inside) = rest.as_str().strip_prefix('{') else { return Ok((1, 1)) };
    let (inside, after) = inside.split_once('}').ok_or("a `{` without its `}`")?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.ok_or(format!("`{{{inside}}}` is neither {{n}} nor {{n,m}}"))
    };
    let (min, max) = match inside.split_once(',') {
        None => (number(inside)?, number(inside)?),
        Some((min, max)) => (number(min)?, number(max)?),
    };
    if min > max || max == 0 || max > MATCH_CHARS_MAX {
        return Err(format!("`{{{inside}}}` must be 1 to {MATCH_CHARS_MAX}, the smaller first"));
    }
    *rest = after.chars();
    Ok((min, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<usize, &str>) {
        match (Pattern::parse(text, true), expect) {
            (Ok(pattern), Ok(states)) => assert_eq!(pattern.states(), states, "{text}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
            (parsed, expect) => panic!("{text}: {parsed:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn patterns() {
        check("abc", Ok(4));
        check(r"\d{3}-\d{2}-\d{4}", Ok(12));
        check(r"\w{20,64}", Ok(65));
        check(r"a\.b\\\{", Ok(6));
        check(r".{0,3}x", Ok(5));
        check(r"\d{256}", Ok(257));
        check(r"\d{257}", Err("1 to 256"));
        check(r"\d{128}\d{129}", Err("257 characters"));
        check("", Err("nothing at all"));
        check(r"\d{0,3}", Err("nothing at all"));
        check(r"\d{0}", Err("1 to 256"));
        check(r"\d{3,2}", Err("the smaller first"));
        check(r"\d{3", Err("without its `}`"));
        for bad in
            ["{}", "{,3}", "{3,}", "{x}", "{-1}", "{+1}", "{1,2,3}", "{99999999999999999999}"]
        {
            check(&format!("a{bad}"), Err("neither"));
        }
        check(r"\q", Err("no \\q"));
        check("\\", Err("backslash at the end"));
        for bad in ["a*", "a+", "[a]", "(a)", "a|b", "^a", "a$", "}"] {
            check(bad, Err("means nothing here"));
        }
    }
}
