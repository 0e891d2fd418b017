//! What a server's `/metrics` says, as numbers. Reads the text format of Prometheus and OpenMetrics as far as
//! a view needs it; lines that it can't read are passed over.

use std::collections::HashMap;

/// Most different names that are kept.
const NAMES_MAX: usize = 4096;
/// Most buckets of one histogram that are kept.
const BUCKETS_MAX: usize = 256;

/// Samples of one scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposition {
    /// By name, summed over labels.
    values: HashMap<String, f64>,
    /// By name: upper bound and how many observations are not above it, in the order of the bounds.
    buckets: HashMap<String, Vec<(f64, f64)>>,
}

impl Exposition {
    /// Reads a scrape.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            match (name.strip_suffix("_bucket"), label(labels, "le").and_then(bound)) {
                (Some(histogram), Some(bound)) => found.bucket(histogram, bound, value),
                _ if found.values.len() < NAMES_MAX || found.values.contains_key(name) => {
                    *found.values.entry(name.to_owned()).or_default() += value;
                }
                _ => {}
            }
        }
        for buckets in found.buckets.values_mut() {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        found
    }

    fn bucket(&mut self, histogram: &str, bound: f64, value: f64) {
        if self.buckets.len() >= NAMES_MAX && !self.buckets.contains_key(histogram) {
            return;
        }
        let buckets = self.buckets.entry(histogram.to_owned()).or_default();
        let room = buckets.len() < BUCKETS_MAX;
        match buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += value,
            None if room => buckets.push((bound, value)),
            None => {}
        }
    }

    /// Whether there is such a metric.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A gauge or a counter; 0 where there is none.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    /// How much a counter has grown since `before`; a server that began anew counts from 0.
    pub(super) fn growth(&self, before: &Self, name: &str) -> f64 {
        let (now, then) = (self.value(name), before.value(name));
        if now < then { now } else { now - then }
    }

    /// The `share` quantile of a histogram, of what it has observed since `before` if that is anything,
    /// else of all; `None` if it has observed nothing. Within a bucket observations count as spread
    /// evenly; beyond the last bound, as that bound.
    pub(super) fn quantile(&self, before: &Self, name: &str, share: f64) -> Option<f64> {
        let now = self.buckets.get(name)?;
        let then = before.buckets.get(name);
        let old = |bound: f64| {
            let known = then.and_then(|then| then.iter().find(|(known, _)| *known == bound));
            known.map_or(0.0, |(_, count)| *count)
        };
        let since: Vec<(f64, f64)> =
            now.iter().map(|(bound, count)| (*bound, (count - old(*bound)).max(0.0))).collect();
        let total = |buckets: &[(f64, f64)]| buckets.last().map_or(0.0, |(_, count)| *count);
        let buckets = if total(&since) > 0.0 { &since } else { now };
        let rank = share * total(buckets);
        if rank <= 0.0 {
            return None;
        }
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if *count >= rank && count > &below {
                let part = (rank - below) / (count - below);
                return Some(if bound.is_finite() { low + (bound - low) * part } else { low });
            }
            (low, below) = (if bound.is_finite() { *bound } else { low }, *count);
        }
        Some(low)
    }
}

/// Name, labels without their braces, value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        None => ("", rest),
        Some(inner) => {
            let (mut quoted, mut escaped) = (false, false);
            let close = inner.char_indices().find(|(_, c)| {
                let is_end = *c == '}' && !quoted;
                if *c == '"' && !escaped {
                    quoted = !quoted;
                }
                escaped = *c == '\\' && !escaped;
                is_end
            });
            let (at, _) = close?;
            (&inner[..at], &inner[at + 1..])
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The value of a label that has no escapes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let at = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""))?;
    at.strip_suffix('"')
}

fn bound(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a gauge\na 2\nb_total{x=\"1\"} 3 # {t=\"1\"} 4\nb_total{x=\"} 9\\\" 2\"} 4.5\n\
                        h_bucket{le=\"1.0\"} 2\nh_bucket{le=\"2.0\"} 6\nh_bucket{le=\"+Inf\"} 8\nh_sum 4\n\
                        broken\nbroken{x=\"1\nc NaNa\n# EOF\n";

    #[test]
    fn samples_are_read_and_summed() {
        let found = Exposition::parse(TEXT);
        let check = |name: &str, expect: f64| assert_eq!(found.value(name), expect, "{name}");
        check("a", 2.0);
        check("b_total", 7.5);
        check("h_sum", 4.0);
        check("nothing", 0.0);
        check("c", 0.0);
        assert!(found.has("a") && !found.has("broken"));
        let older = Exposition::parse("a 1\nb_total 9\n");
        assert_eq!((found.growth(&older, "a"), found.growth(&older, "b_total")), (1.0, 7.5));
    }

    #[test]
    fn quantiles_of_all_and_of_what_is_new() {
        let (none, found) = (Exposition::default(), Exposition::parse(TEXT));
        let check = |before: &Exposition, share: f64, expect: Option<f64>| {
            assert_eq!(found.quantile(before, "h", share), expect, "{share}");
        };
        check(&none, 0.25, Some(1.0));
        check(&none, 0.5, Some(1.5));
        check(&none, 0.75, Some(2.0));
        check(&none, 0.99, Some(2.0));
        check(&found, 0.5, Some(1.5));
        let older = Exposition::parse(
            "h_bucket{le=\"1.0\"} 2\nh_bucket{le=\"2.0\"} 2\nh_bucket{le=\"+Inf\"} 4\n",
        );
        check(&older, 0.5, Some(1.5));
        check(&older, 1.0, Some(2.0));
        assert_eq!(none.quantile(&none, "h", 0.5), None);
        assert_eq!(Exposition::parse("h_bucket{le=\"1\"} 0\n").quantile(&none, "h", 0.5), None);
    }
}
