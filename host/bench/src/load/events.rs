//! Server-sent events, read from pieces that end anywhere. Knows nothing of what events mean.

/// Longest line that is read. A server that sends a longer one is broken.
const LINE_BYTES_MAX: usize = 4 << 20;

/// The part of a stream that is not a whole line yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
}

/// A line longer than any event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Events {
    /// Calls `each` with the data of every line that `bytes` completes. Comments and other fields
    /// are skipped; an event of several lines is not joined, since no such server writes one.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), LineTooLong> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                return Err(LineTooLong);
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                if let Some(data) = self.line.strip_prefix(b"data:") {
                    each(data.trim_ascii());
                }
                self.line.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream = b": hi\r\ndata: {\"a\": 1}\r\n\r\nevent: x\ndata:2\n\ndata: [DONE]\n\n";
        for size in 1..=stream.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for piece in stream.chunks(size) {
                let each =
                    |data: &[u8]| seen.push(String::from_utf8(data.to_vec()).expect("UTF-8"));
                events.push(piece, each).expect("short lines");
            }
            assert_eq!(seen, ["{\"a\": 1}", "2", "[DONE]"], "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_has_a_limit() {
        let check = |length: usize, expect: Result<(), LineTooLong>| {
            let mut events = Events::default();
            let line = vec![b'x'; length - 1];
            events.push(&line, |_| panic!("no data")).expect("no longer than the limit");
            assert_eq!(events.push(b"\n", |_| panic!("no data")), expect);
        };
        check(LINE_BYTES_MAX, Ok(()));
        check(LINE_BYTES_MAX + 1, Err(LineTooLong));
    }
}
