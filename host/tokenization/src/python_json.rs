//! JSON as Python's `json.dumps` writes it: templates were made with it, and models were trained on
//! its spaces.

use std::io;

use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `json.dumps(value, ensure_ascii=False)`: a space behind `,` and `:`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// The value as Python writes it, on one line or indented.
pub(crate) fn dumps(value: &Value, indent: Option<usize>) -> String {
    let mut bytes = Vec::new();
    let written = match indent {
        None => {
            let mut serializer = Serializer::with_formatter(&mut bytes, Spaced);
            serde::Serialize::serialize(value, &mut serializer)
        }
        Some(width) => {
            let spaces = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
            serde::Serialize::serialize(value, &mut serializer)
        }
    };
    written.expect("memory takes any value");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_python_writes_it() {
        let value = json!({"a": [1, 2.5, null], "é": "<'&'>"});
        assert_eq!(dumps(&value, None), r#"{"a": [1, 2.5, null], "é": "<'&'>"}"#);
        let value = json!({"a": [1], "b": {}});
        assert_eq!(dumps(&value, Some(2)), "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}");
    }
}
