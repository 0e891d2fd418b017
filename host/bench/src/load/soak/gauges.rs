//! A server's own word on what it holds, from `/metrics`. Reads; judges nothing.

use std::collections::BTreeMap;

/// Gauges and counters by name, labels included as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gauges(BTreeMap<String, f64>);

/// What must be zero while nobody asks for anything, and what a rest would be.
pub(super) const ZERO_WHEN_QUIET: [(&str, &str); 7] = [
    ("vllm:num_requests_running", "sequences run"),
    ("vllm:num_requests_waiting", "sequences wait"),
    ("mortise_engine_kv_blocks{state=\"used\"}", "KV blocks are held"),
    ("mortise_adapter_leases", "adapter leases are held"),
    ("mortise_adapter_waiting", "requests wait for adapters"),
    ("mortise_adapters_loading", "adapter loads have no end"),
    ("mortise_requests_in_flight", "requests have no receipt"),
];
/// What may be no more than it was before, but for a few.
pub(super) const AS_BEFORE: [(&str, &str, f64); 2] =
    [("process_open_fds", "open files", 4.0), ("process_threads", "threads", 8.0)];
/// Bytes of the server in memory.
pub(super) const RESIDENT: &str = "process_resident_memory_bytes";

impl Gauges {
    /// Reads OpenMetrics text; lines that are no sample are left out.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let line = line.trim();
            if line.starts_with('#') {
                return None;
            }
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(sample).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The first that the server does not tell, of those that a soak looks at.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let zero = ZERO_WHEN_QUIET.iter().map(|(name, _)| *name);
        let mut names = zero.chain(AS_BEFORE.iter().map(|(name, ..)| *name)).chain([RESIDENT]);
        names.find(|name| self.get(name).is_none())
    }

    /// What is held that should not be while nobody asks for anything.
    pub(super) fn held(&self, before: &Self) -> Vec<String> {
        let zero = ZERO_WHEN_QUIET.iter().filter_map(|(name, what)| {
            let value = self.get(name).unwrap_or(f64::NAN);
            (value != 0.0).then(|| format!("{value} {what} ({name})"))
        });
        let more = AS_BEFORE.iter().filter_map(|(name, what, few)| {
            let value = |of: &Self| of.get(name).unwrap_or(f64::NAN);
            let (found, was) = (value(self), value(before));
            let fits = found <= was + few;
            (!fits).then(|| format!("{found} {what}, {was} before ({name})"))
        });
        zero.chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server at rest, with a change.
    fn gauges(name: &str, value: f64) -> Gauges {
        let zero = ZERO_WHEN_QUIET.iter().map(|(name, _)| ((*name).to_owned(), 0.0));
        let some = [("process_open_fds", 20.0), ("process_threads", 9.0), (RESIDENT, 1e9)];
        let some = some.map(|(name, value)| (name.to_owned(), value));
        let mut gauges = Gauges(zero.chain(some).collect());
        gauges.0.insert(name.to_owned(), value);
        gauges
    }

    #[test]
    fn samples_are_read_as_they_are_written() {
        let text = "# HELP a b\n# TYPE a gauge\na 3\nb{state=\"used\",x=\"y z\"} 0.5\nc 1e9\nd x\n\n# EOF\n";
        let found = Gauges::parse(text);
        let check = |name: &str, expect| assert_eq!(found.get(name), expect, "{name}");
        check("a", Some(3.0));
        check("b{state=\"used\",x=\"y z\"}", Some(0.5));
        check("c", Some(1e9));
        check("d", None);
        check("#", None);
        assert_eq!(found.missing(), Some("vllm:num_requests_running"));
    }

    #[test]
    fn what_is_held_is_named() {
        let rest = gauges("x", 1.0);
        assert_eq!(rest.missing(), None);
        let check = |name: &str, value: f64, expect: &[&str]| {
            assert_eq!(gauges(name, value).held(&rest), expect);
        };
        check("x", 2.0, &[]);
        check("vllm:num_requests_running", 2.0, &["2 sequences run (vllm:num_requests_running)"]);
        check(
            "mortise_adapter_leases",
            -1.0,
            &["-1 adapter leases are held (mortise_adapter_leases)"],
        );
        check("process_open_fds", 24.0, &[]);
        check("process_open_fds", 25.0, &["25 open files, 20 before (process_open_fds)"]);
        check("process_threads", 18.0, &["18 threads, 9 before (process_threads)"]);
        assert_eq!(Gauges::default().held(&rest).len(), 9, "what is not told is not fine");
    }
}
