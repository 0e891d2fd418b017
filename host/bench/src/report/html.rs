//! The page with charts.

use super::svg::{Bar, Group, bars, escape};
use super::{Report, table};
use crate::load::{Percentiles, SideResult};

const STYLE: &str = "\
:root { color-scheme: light dark; --a: #2f6fde; --b: #e0862b; --ink: #222; --page: #fff; --rule: #ccc }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --page: #161616; --rule: #444 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; font-size: 12px; fill: var(--ink) }
.s0 { fill: var(--a) } .s1 { fill: var(--b) }
.mark { stroke: var(--ink); fill: none }
table { border-collapse: collapse; font-size: 13px; width: 100% }
td, th { padding: .2rem .5rem; border-bottom: 1px solid var(--rule); text-align: right }
td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left }
.key { display: inline-block; width: 1em; height: 1em; vertical-align: -.1em; margin-left: 1em }
.key.s0 { background: var(--a) } .key.s1 { background: var(--b) }
code { overflow-wrap: anywhere }
";

pub(super) fn write(report: &Report) -> String {
    let throughput = chart(report, |side| {
        let value = side.median.output_tokens_per_s;
        (value, None, format!("{value:.1}"))
    });
    let times = |percentiles: Percentiles| {
        let (p50, p99) = (percentiles.p50, percentiles.p99);
        (p50, Some(p99), format!("{p50:.1} / {p99:.1}"))
    };
    let ttft = chart(report, |side| times(side.median.ttft_ms));
    let itl = chart(report, |side| times(side.median.itl_ms));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <title>Benchmark</title>\n<style>\n{STYLE}</style>\n<h1>Benchmark</h1>\n\
         <p>{}</p>\n<p><code>{}</code></p>\n\
         <h2>Output tokens per second</h2>\n{throughput}\
         <h2>Time to first token, ms: median and 99th percentile</h2>\n{ttft}\
         <h2>Between tokens, ms: median and 99th percentile</h2>\n{itl}\
         <h2>All figures</h2>\n<p>Medians of all measurements of a server; times in ms.</p>\n{}{}</html>\n",
        legend(report),
        escape(&report.command),
        figures(report),
        cold(report),
    )
}

/// Colours of the servers, by the order in which they stand.
fn legend(report: &Report) -> String {
    let sides = report.scenarios.first().map(|scenario| scenario.sides.as_slice());
    let key = |(series, side): (usize, &SideResult)| {
        format!(
            "<span class=\"key s{series}\"></span> {} ({})",
            escape(&side.label),
            escape(&side.url)
        )
    };
    sides.unwrap_or_default().iter().enumerate().map(key).collect()
}

fn chart(report: &Report, of: impl Fn(&SideResult) -> (f64, Option<f64>, String)) -> String {
    let groups: Vec<Group> = report
        .scenarios
        .iter()
        .map(|scenario| {
            let bar = |(series, side): (usize, &SideResult)| {
                let (value, mark, note) = of(side);
                Bar { series, value, mark, note }
            };
            let bars = scenario.sides.iter().enumerate().map(bar).collect();
            Group { name: scenario.name.clone(), bars }
        })
        .collect();
    bars(&groups)
}

/// What loading adapters did to requests.
fn cold(report: &Report) -> String {
    table::cold(report).iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect()
}

fn figures(report: &Report) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let mut rows = row(&table::HEADINGS.map(str::to_owned), "th");
    for scenario in &report.scenarios {
        for side in &scenario.sides {
            rows.push_str(&row(&table::cells(scenario, side), "td"));
        }
        if let Some(ratio) = table::ratio(scenario) {
            rows.push_str(&format!("<tr><td colspan=\"11\">{}</td></tr>\n", escape(&ratio)));
        }
    }
    format!("<table>\n{rows}</table>\n")
}
