//! One frame of the view, as text. Never writes what a terminal would take for more than text.

use std::fmt::Write;

use serde_json::Value;

use super::exposition::Exposition;

/// Longest name that is shown, in characters.
const NAME_CHARS_MAX: usize = 32;

/// What two looks at a server have found.
pub(super) struct View<'a> {
    pub(super) url: &'a str,
    pub(super) before: &'a Exposition,
    pub(super) now: &'a Exposition,
    /// `/admin/usage` at both looks.
    pub(super) used_before: &'a Value,
    pub(super) used: &'a Value,
    /// Seconds between them.
    pub(super) seconds: f64,
    /// Most adapters that are shown.
    pub(super) rows: usize,
}

/// An adapter's row.
struct Row {
    name: String,
    tokens_per_s: f64,
    requests: u64,
    prompt: u64,
    generated: u64,
    compute_s: f64,
    loads: u64,
}

impl View<'_> {
    /// The frame, lines of text.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.summary(&mut out);
        self.adapters(&mut out);
        out
    }

    fn summary(&self, out: &mut String) {
        let value = |name: &str| self.now.value(name);
        let rate = |name: &str| self.now.growth(self.before, name) / self.seconds;
        let (queries, hits) =
            (value("vllm:prefix_cache_queries_total"), value("vllm:prefix_cache_hits_total"));
        let hit_share = if queries > 0.0 { 100.0 * hits / queries } else { 0.0 };
        let lines = [
            format!("mortise top  {}", plain(self.url)),
            format!(
                "requests   {:.0} running   {:.0} waiting   {:.2}/s ended",
                value("vllm:num_requests_running"),
                value("vllm:num_requests_waiting"),
                rate("vllm:request_success_total"),
            ),
            format!(
                "tokens/s   {:.1} prompt   {:.1} generated",
                rate("vllm:prompt_tokens_total"),
                rate("vllm:generation_tokens_total"),
            ),
            format!(
                "memory     {:.1} % of KV blocks   {hit_share:.1} % prefix hits   {:.0} adapters, {}",
                100.0 * value("vllm:kv_cache_usage_perc"),
                value("mortise_adapters_resident"),
                bytes(value("mortise_adapters_resident_bytes")),
            ),
            format!(
                "TTFT       {}   ITL   {}",
                self.quantiles("vllm:time_to_first_token_seconds"),
                self.quantiles("vllm:inter_token_latency_seconds"),
            ),
        ];
        for line in lines {
            writeln!(out, "{line}").expect("a String takes everything");
        }
    }

    fn quantiles(&self, name: &str) -> String {
        let show = |share: f64| match self.now.quantile(self.before, name, share) {
            Some(seconds) => format!("{:.1} ms", seconds * 1e3),
            None => "-".to_owned(),
        };
        format!("p50 {}  p99 {}", show(0.5), show(0.99))
    }

    fn adapters(&self, out: &mut String) {
        let mut rows = self.rows();
        let all = rows.len();
        rows.sort_by(|a, b| {
            let hotter = b.tokens_per_s.total_cmp(&a.tokens_per_s);
            hotter.then(b.compute_s.total_cmp(&a.compute_s)).then_with(|| a.name.cmp(&b.name))
        });
        rows.truncate(self.rows);
        let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(7);
        writeln!(
            out,
            "\n{:width$}  {:>8}  {:>9}  {:>10}  {:>10}  {:>10}  {:>6}",
            "ADAPTER", "TOK/S", "REQUESTS", "PROMPT", "GENERATED", "COMPUTE S", "LOADS"
        )
        .expect("a String takes everything");
        for row in &rows {
            writeln!(
                out,
                "{:width$}  {:>8.1}  {:>9}  {:>10}  {:>10}  {:>10.2}  {:>6}",
                row.name,
                row.tokens_per_s,
                row.requests,
                row.prompt,
                row.generated,
                row.compute_s,
                row.loads
            )
            .expect("a String takes everything");
        }
        if all > rows.len() {
            writeln!(out, "and {} more", all - rows.len()).expect("a String takes everything");
        }
    }

    /// The base model's row and those of adapters.
    fn rows(&self) -> Vec<Row> {
        let before = |name: &Value| {
            let adapters = self.used_before["adapters"].as_array().into_iter().flatten();
            let mut all = adapters.chain([&self.used_before["base"]]);
            all.find(|row| row["name"] == *name).and_then(|row| row["generated_tokens"].as_u64())
        };
        let row = |used: &Value, suffix: &str| {
            let count = |key: &str| used[key].as_u64().unwrap_or_default();
            let generated = count("generated_tokens");
            let new = generated.saturating_sub(before(&used["name"]).unwrap_or_default());
            Row {
                name: format!("{}{suffix}", plain(used["name"].as_str().unwrap_or("?"))),
                tokens_per_s: new as f64 / self.seconds,
                requests: count("requests"),
                prompt: count("prompt_tokens"),
                generated,
                compute_s: used["compute_seconds"].as_f64().unwrap_or_default(),
                loads: count("loads"),
            }
        };
        let adapters = self.used["adapters"].as_array().into_iter().flatten();
        adapters.map(|used| row(used, "")).chain([row(&self.used["base"], " (base)")]).collect()
    }
}

fn bytes(count: f64) -> String {
    let mib = count / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// A name without what would move a cursor or turn a line around, and not too long.
fn plain(name: &str) -> String {
    let hidden = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || turns || matches!(c, '\u{200b}'..='\u{200f}')
    };
    let shown = name.chars().map(|c| if hidden(c) { '?' } else { c });
    let mut text: String = shown.take(NAME_CHARS_MAX).collect();
    if name.chars().nth(NAME_CHARS_MAX).is_some() {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str, generated: u64) -> Value {
        json!({"name": name, "requests": 2, "prompt_tokens": 30, "generated_tokens": generated,
               "compute_seconds": 1.5, "loads": 1})
    }

    #[test]
    fn a_frame() {
        let before = Exposition::parse("vllm:generation_tokens_total 10\n");
        let now = Exposition::parse(
            "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.125\n\
             vllm:generation_tokens_total 60\nmortise_adapters_resident 2\n\
             mortise_adapters_resident_bytes 3145728\n\
             vllm:time_to_first_token_seconds_bucket{le=\"0.01\"} 4\n",
        );
        let used_before = json!({"base": row("tiny", 5), "adapters": [row("a", 10)]});
        let used =
            json!({"base": row("tiny", 5), "adapters": [row("a", 10), row("b\u{1b}[2J", 50)]});
        let view = View {
            url: "http://h:1",
            before: &before,
            now: &now,
            used_before: &used_before,
            used: &used,
            seconds: 2.0,
            rows: 2,
        };
        let expect = "\
mortise top  http://h:1
requests   3 running   1 waiting   0.00/s ended
tokens/s   0.0 prompt   25.0 generated
memory     12.5 % of KV blocks   0.0 % prefix hits   2 adapters, 3.0 MiB
TTFT       p50 5.0 ms  p99 9.9 ms   ITL   p50 -  p99 -

ADAPTER     TOK/S   REQUESTS      PROMPT   GENERATED   COMPUTE S   LOADS
b?[2J        25.0          2          30          50        1.50       1
a             0.0          2          30          10        1.50       1
and 1 more
";
        assert_eq!(view.text(), expect);
    }

    #[test]
    fn names_are_text() {
        let check = |name: &str, expect: &str| assert_eq!(plain(name), expect);
        check("wallet-é", "wallet-é");
        check("a\n\u{202e}b\u{7}", "a??b?");
        check(&"x".repeat(NAME_CHARS_MAX), &"x".repeat(NAME_CHARS_MAX));
        check(&"x".repeat(NAME_CHARS_MAX + 1), &format!("{}…", "x".repeat(NAME_CHARS_MAX - 1)));
    }
}
