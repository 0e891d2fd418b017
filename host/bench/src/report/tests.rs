//! Reports of known figures, compared with files that a person has read.

use std::path::Path;

use super::*;
use crate::load::{Failures, Percentiles, Ratios, SideResult, Summary};

fn summary(scale: f64) -> Summary {
    let times = |p50: f64| Percentiles {
        count: 40,
        mean: 1.1 * p50,
        p50,
        p90: 2.0 * p50,
        p99: 3.0 * p50,
        max: 4.0 * p50,
    };
    Summary {
        wall_s: 10.0,
        completed: 40,
        prompt_tokens: 640,
        output_tokens: 1280,
        adapters: 8,
        requests_per_s: 4.0 * scale,
        output_tokens_per_s: 128.0 * scale,
        ttft_ms: times(20.0 / scale),
        ttft_first_use_ms: times(30.0 / scale),
        ttft_warm_ms: times(19.0 / scale),
        ttft_cold_ms: times(25.0 / scale),
        adapter_wait_ms: times(6.0 / scale),
        itl_ms: times(8.0 / scale),
        itl_warm_ms: times(7.5 / scale),
        itl_cold_ms: times(8.5 / scale),
        tpot_ms: times(8.5 / scale),
        latency_ms: times(300.0 / scale),
        ..Summary::default()
    }
}

fn report() -> Report {
    let side = |label: &str, url: &str, median: Summary| SideResult {
        label: label.to_owned(),
        url: url.to_owned(),
        runs: vec![median.clone()],
        median,
    };
    let mut failing = summary(0.25);
    failing.failed = 2;
    let example = "429 Too Many Requests: <busy> & \"gone\"".to_owned();
    failing.failures.insert("status 429".to_owned(), Failures { count: 2, example });
    let ratios =
        Ratios { output_tokens_per_s: 4.0, requests_per_s: 4.0, ttft_p50: 0.25, itl_p50: 0.25 };
    let scenarios = vec![
        ScenarioResult {
            name: "8 streams, distinct".to_owned(),
            sides: vec![
                side("mortise", "http://a:1", summary(1.0)),
                side("peer <1>", "http://b:2", failing),
            ],
            ratios: Some(ratios),
        },
        ScenarioResult {
            name: "1 stream, none".to_owned(),
            sides: vec![side("mortise", "http://a:1", summary(0.5))],
            ratios: None,
        },
    ];
    let of = |p50: f64| Percentiles { count: 8, p50, p99: 2.0 * p50, ..Percentiles::default() };
    let reads = Reads { files: 8, mean_bytes: 5.25e6, cached_ms: of(0.5), disk_ms: of(3.0) };
    let command = "mortise bench run --url 'http://a:1'".to_owned();
    Report::new(1_700_000_000, command, scenarios).with_reads(Some(reads))
}

/// Compares with the file, or writes what it should be beside it.
fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/golden").join(name);
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expect {
        let new = path.with_extension("new");
        std::fs::write(&new, found).expect("written");
        panic!("{} differs from {}: read it, and move it there", new.display(), path.display());
    }
}

#[test]
fn reports_of_known_figures() {
    let report = report();
    check("report.json", &report.json());
    check("report.txt", &report.table());
    check("report.html", &report.html());
}

#[test]
fn files_are_written_where_they_are_wanted() {
    let dir = tempfile::tempdir().expect("folder");
    let (json, html) = (dir.path().join("r.json"), dir.path().join("r.html"));
    let report = report();
    report.save(Some(&json), None).expect("written");
    assert_eq!(std::fs::read_to_string(&json).expect("a file"), report.json());
    assert!(!html.exists());
    report.save(None, Some(&html)).expect("written");
    assert_eq!(std::fs::read_to_string(&html).expect("a file"), report.html());
    report.save(Some(&dir.path().join("no/r.json")), None).expect_err("no such folder");
}

#[test]
fn a_report_of_nothing_is_still_a_page() {
    let report = Report::new(0, String::new(), Vec::new());
    assert!(report.html().contains("<svg") && report.table().starts_with("scenario"));
}
