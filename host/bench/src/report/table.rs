//! The table for terminals.

use super::Report;
use crate::load::{Percentiles, ScenarioResult, SideResult};

/// Headings of the columns; the first two are text and stand left.
pub(super) const HEADINGS: [&str; 11] = [
    "scenario",
    "server",
    "out tok/s",
    "req/s",
    "TTFT p50",
    "p90",
    "p99",
    "ITL p50",
    "p90",
    "p99",
    "failed",
];
const TEXT_COLUMNS: usize = 2;

/// One server's row. Times are in milliseconds.
pub(super) fn cells(scenario: &ScenarioResult, side: &SideResult) -> [String; 11] {
    let median = &side.median;
    let time = |value: f64| format!("{value:.1}");
    [
        scenario.name.clone(),
        side.label.clone(),
        format!("{:.1}", median.output_tokens_per_s),
        format!("{:.2}", median.requests_per_s),
        time(median.ttft_ms.p50),
        time(median.ttft_ms.p90),
        time(median.ttft_ms.p99),
        time(median.itl_ms.p50),
        time(median.itl_ms.p90),
        time(median.itl_ms.p99),
        median.failed.to_string(),
    ]
}

/// What stands below the rows of two servers, if there are two.
pub(super) fn ratio(scenario: &ScenarioResult) -> Option<String> {
    let (ratios, [ours, peer]) = (scenario.ratios?, scenario.sides.as_slice()) else { return None };
    Some(format!(
        "{} / {}: output tokens/s {:.2}x, requests/s {:.2}x, TTFT p50 {:.2}x, ITL p50 {:.2}x",
        ours.label,
        peer.label,
        ratios.output_tokens_per_s,
        ratios.requests_per_s,
        ratios.ttft_p50,
        ratios.itl_p50,
    ))
}

/// What loading adapters did to requests, and how it compares with reading their files.
pub(super) fn cold(report: &Report) -> Vec<String> {
    let both = |times: Percentiles| format!("{:.1} / {:.1}", times.p50, times.p99);
    let mut lines = Vec::new();
    for (scenario, side) in
        report.scenarios.iter().flat_map(|one| one.sides.iter().map(move |side| (one, side)))
    {
        let median = &side.median;
        let (warm, cold) = (median.ttft_warm_ms, median.ttft_cold_ms);
        if cold.count == 0 {
            continue;
        }
        let added = (cold.p50 - warm.p50, cold.p99 - warm.p99);
        let mut line = format!(
            "{}, {}: {} of {} requests had a cold adapter. p50 / p99 in ms: TTFT {} warm, {} cold, {:.1} / \
             {:.1} more; loads {}; ITL {} warm, {} cold",
            scenario.name,
            side.label,
            cold.count,
            cold.count + warm.count,
            both(warm),
            both(cold),
            added.0,
            added.1,
            both(median.adapter_wait_ms),
            both(median.itl_warm_ms),
            both(median.itl_cold_ms),
        );
        if let Some(reads) = &report.adapter_reads {
            let times = |read: Percentiles| added.1 / read.p50;
            line.push_str(&format!(
                ". The p99 more is {:.1} times reading the file from the page cache, {:.1} times from \
                 the disk",
                times(reads.cached_ms),
                times(reads.disk_ms)
            ));
        }
        lines.push(line);
    }
    if let Some(reads) = &report.adapter_reads {
        lines.push(format!(
            "adapter files, {} of {:.2} MB, p50 / p99 in ms: {} from the page cache, {} from the disk",
            reads.files,
            reads.mean_bytes / 1e6,
            both(reads.cached_ms),
            both(reads.disk_ms)
        ));
    }
    lines
}

pub(super) fn write(report: &Report) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for scenario in &report.scenarios {
        rows.extend(scenario.sides.iter().map(|side| cells(scenario, side)));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADINGS.len()).filter_map(width).collect();
    let line = |row: &[String; 11]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < TEXT_COLUMNS {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    let mut text = format!("{}\n", line(&rows[0]));
    let mut rows = rows.iter().skip(1);
    for scenario in &report.scenarios {
        for row in rows.by_ref().take(scenario.sides.len()) {
            text.push_str(&line(row));
            text.push('\n');
        }
        if let Some(ratio) = ratio(scenario) {
            text.push_str(&format!("  {ratio}\n"));
        }
    }
    for line in cold(report) {
        text.push_str(&line);
        text.push('\n');
    }
    for scenario in &report.scenarios {
        for side in &scenario.sides {
            for (cause, failures) in &side.median.failures {
                text.push_str(&format!(
                    "{}, {}: {} x {cause}, such as: {}\n",
                    scenario.name, side.label, failures.count, failures.example
                ));
            }
        }
    }
    text
}
