//! What the process takes of its machine, read anew for each look at the metrics. Names are those that
//! Prometheus' own clients use. Says nothing where the system has no `/proc`.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = field(&status, "VmRSS:").map(|kilobytes| kilobytes.saturating_mul(1024));
        // The listing is one of the files that it lists.
        let files = std::fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1));
        let gauges = [
            ("process_resident_memory_bytes", "Bytes of the process in memory", resident),
            ("process_threads", "Threads of the process", field(&status, "Threads:")),
            ("process_open_fds", "Open files of the process", files.ok().map(|files| files as u64)),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

/// The number behind `name` in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn fields_are_read_from_what_linux_writes() {
        let status = "Name:\tmortise\nVmRSS:\t  123456 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(123_456));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(field("VmRSS:", "VmRSS:"), None);
    }

    #[test]
    fn a_look_at_the_metrics_is_of_now() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("memory");
        for name in ["process_resident_memory_bytes", "process_threads", "process_open_fds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = line.expect(name).parse().expect("a number");
            assert!(value >= 1.0, "{name}: {value}");
        }
    }
}
