//! The table for terminals.

use super::Report;
use crate::load::{ScenarioResult, SideResult};

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
