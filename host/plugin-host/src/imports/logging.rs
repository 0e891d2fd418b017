//! `logging`: a guest's lines in the host's log, few, short and without control characters, so that
//! no guest can fill a disk or forge a line.

use std::fmt::Write as _;

use crate::bindings::logging::{Host, Level};
use crate::bindings::types::{Attr, Value};
use crate::guest::Guest;
use crate::imports::cut;

/// Runs `tracing::$macro` at the level that the guest chose.
macro_rules! at_level {
    ($level:expr, $macro:ident $(, $($rest:tt)*)?) => {
        match $level {
            Level::Trace => tracing::$macro!(target: "plugin", tracing::Level::TRACE $(, $($rest)*)?),
            Level::Debug => tracing::$macro!(target: "plugin", tracing::Level::DEBUG $(, $($rest)*)?),
            Level::Info => tracing::$macro!(target: "plugin", tracing::Level::INFO $(, $($rest)*)?),
            Level::Warn => tracing::$macro!(target: "plugin", tracing::Level::WARN $(, $($rest)*)?),
            Level::Error => tracing::$macro!(target: "plugin", tracing::Level::ERROR $(, $($rest)*)?),
        }
    };
}

impl Host for Guest {
    fn enabled(&mut self, level: Level) -> bool {
        self.log_lines_left > 0 && at_level!(level, enabled)
    }

    fn log(&mut self, level: Level, message: String, fields: Vec<Attr>) {
        // Counted whether or not the level is on, so that a guest behaves the same at every level.
        if self.log_lines_left == 0 {
            self.lent.log_lines_dropped.inc();
            return;
        }
        self.log_lines_left -= 1;
        if !at_level!(level, enabled) {
            return;
        }
        let line = line(&message, &fields, self.lent.limits.log_line_bytes_max);
        let (plugin, version) = (self.lent.name.as_str(), self.lent.version.as_str());
        let request = self.request_id.as_str();
        at_level!(level, event, plugin, version, request, "{line}");
    }
}

/// Message and fields in one line of at most `bytes_max` bytes.
fn line(message: &str, fields: &[Attr], bytes_max: usize) -> String {
    let mut line = cut(message, bytes_max).to_owned();
    for Attr { key, value } in fields {
        if line.len() >= bytes_max {
            break;
        }
        let _ = write!(line, " {}=", cut(key, bytes_max));
        let _ = match value {
            Value::Text(text) => write!(line, "{:?}", cut(text, bytes_max)),
            Value::Int(number) => write!(line, "{number}"),
            Value::Float(number) => write!(line, "{number}"),
            Value::Boolean(truth) => write!(line, "{truth}"),
            Value::Bytes(bytes) => write!(line, "({} bytes)", bytes.len()),
        };
    }
    line.truncate(line.floor_char_boundary(bytes_max));
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, fields: &[(&str, Value)], bytes_max: usize, expect: &str) {
        let attr =
            |(key, value): &(&str, Value)| Attr { key: (*key).to_owned(), value: value.clone() };
        let fields: Vec<Attr> = fields.iter().map(attr).collect();
        assert_eq!(line(message, &fields, bytes_max), expect);
    }

    #[test]
    fn lines_are_cut_and_cannot_be_forged() {
        check("hello", &[], 100, "hello");
        check("hello", &[], 5, "hello");
        check("hello", &[], 4, "hell");
        check("aé", &[], 2, "a");
        check("a\nINFO forged\u{1b}[31m", &[], 100, "a INFO forged [31m");
        let fields = [("n", Value::Int(3)), ("b", Value::Bytes(vec![1, 2]))];
        check("x", &fields, 100, "x n=3 b=(2 bytes)");
        check("x", &[("t", Value::Text("y\n".into()))], 100, "x t=\"y\\n\"");
        check("x", &fields, 4, "x n=");
    }
}
