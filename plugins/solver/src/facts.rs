//! What the calculator has found out, in the order in which it was asked.

use crate::calculator::{CalcError, Number};

/// Most results that are kept.
const FACTS_MAX: usize = 64;

/// An expression and its value.
struct Fact {
    expression: String,
    value: Result<Number, CalcError>,
    /// Whether it stands in the user's task.
    of_task: bool,
}

#[derive(Default)]
pub(crate) struct Facts(Vec<Fact>);

impl Facts {
    /// Keeps a result; tells whether it is new. Over the limit nothing is.
    pub(crate) fn add(
        &mut self,
        expression: &str,
        value: Result<Number, CalcError>,
        of_task: bool,
    ) -> bool {
        let plain = |text: &str| text.split_whitespace().collect::<String>();
        let known = |fact: &Fact| plain(&fact.expression) == plain(expression);
        if self.0.len() >= FACTS_MAX || self.0.iter().any(known) {
            return false;
        }
        self.0.push(Fact { expression: expression.to_owned(), value, of_task });
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line for each.
    pub(crate) fn lines(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(Fact::line).collect();
        lines.join("\n")
    }

    /// Lines of those expressions of the task whose value `text` does not hold.
    pub(crate) fn missing_from(&self, text: &str) -> String {
        let is_missing = |fact: &&Fact| fact.of_task && !fact.is_in(text);
        let lines: Vec<String> = self.0.iter().filter(is_missing).map(Fact::line).collect();
        lines.join("\n")
    }
}

impl Fact {
    fn line(&self) -> String {
        line(&self.expression, &self.value)
    }

    /// Whether the value stands in `text` as a number of its own. What has no value does not.
    fn is_in(&self, text: &str) -> bool {
        let Ok(value) = &self.value else { return false };
        let (value, text) = (value.to_string(), without_commas(text));
        let digit = |c: char| c.is_ascii_digit();
        text.match_indices(&value).any(|(start, _)| {
            let (before, after) = (&text[..start], &text[start + value.len()..]);
            let inside = before.ends_with(|c: char| digit(c) || c == '.' || c == '-')
                || after.starts_with(digit)
                || after.strip_prefix('.').is_some_and(|rest| rest.starts_with(digit));
            !inside
        })
    }
}

/// `2 + 2 = 4`, or why not.
pub(crate) fn line(expression: &str, value: &Result<Number, CalcError>) -> String {
    match value {
        Ok(value) if value.is_decimal() => format!("{expression} = {value}"),
        Ok(value) => format!("{expression} ≈ {value}"),
        Err(error) => format!("{expression}: error: {error}"),
    }
}

/// `1,234` as `1234`.
fn without_commas(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let kept = |(at, c): (usize, char)| {
        let between = c == ',' && digit(at.checked_sub(1)) && digit(Some(at + 1));
        (!between).then_some(c)
    };
    text.char_indices().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calculator::evaluate;

    #[test]
    fn values_are_looked_for_as_numbers() {
        let check = |expression: &str, text: &str, expect: bool| {
            let mut facts = Facts::default();
            assert!(facts.add(expression, evaluate(expression), true));
            assert_eq!(facts.missing_from(text).is_empty(), expect, "{expression} in {text}");
        };
        check("2 + 2", "It is 4.", true);
        check("2 + 2", "4", true);
        check("2 + 2", "It is 14, 42, 4.5, 0.4 or -4.", false);
        check("2 - 6", "It is -4!", true);
        check("1000 * 1234", "About 1,234,000 in all", true);
        check("10 / 4", "2.5.", true);
        check("1 / 0", "0", false);
    }

    #[test]
    fn results_are_kept_once() {
        let mut facts = Facts::default();
        assert!(facts.is_empty());
        assert!(facts.add("2 + 2", evaluate("2 + 2"), true));
        assert!(!facts.add("2+2", evaluate("2+2"), false));
        assert!(facts.add("1/3", evaluate("1/3"), false));
        assert!(facts.add("1/0", evaluate("1/0"), false));
        let lines = "2 + 2 = 4\n1/3 ≈ 0.333333333333\n1/0: error: division by zero";
        assert_eq!(facts.lines(), lines);
        assert_eq!(facts.missing_from("nothing"), "2 + 2 = 4");
        for n in 3..FACTS_MAX {
            assert!(facts.add(&n.to_string(), evaluate("1"), false));
        }
        assert!(!facts.add("one more", evaluate("1"), false));
    }
}
