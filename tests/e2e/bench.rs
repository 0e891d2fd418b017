//! `mortise bench` as one runs it: a made model with made adapters is served, driven and reported on.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{BINARY, Server, Setup};

/// Runs `mortise bench`; what it printed.
fn bench(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).arg("bench").args(arguments).output();
    let output = output.expect("the binary starts");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {log}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A server of a model that is made in no time, with three adapters, and what keeps its files.
fn made() -> (Server, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("folder");
    let path = |name: &str| data.path().join(name).to_str().expect("UTF-8").to_owned();
    let sizes = json!({
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 2000,
        "tie_word_embeddings": true,
    });
    std::fs::create_dir(path("shape")).expect("folder");
    std::fs::write(data.path().join("shape/config.json"), sizes.to_string()).expect("written");
    bench(&["make", "model", &path("shape"), &path("model"), "--seed", "3"]);
    let three = ["--count", "3", "--rank", "4"];
    let make = ["make", "adapters", &path("model"), &path("adapters")];
    bench(&[make.as_slice(), three.as_slice()].concat());
    let setup = Setup {
        data: data.path().to_owned(),
        adapters: None,
        config: String::new(),
        plugins: false,
    };
    (Server::start(&setup), data)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON")
}

#[test]
fn a_made_model_serves_a_measured_load() {
    let (server, data) = made();
    let (json, html) = (data.path().join("r.json"), data.path().join("r.html"));
    let table = bench(&[
        "run",
        "--url",
        &server.url,
        "--concurrency",
        "1,3",
        "--popularity",
        "none,distinct,zipf:1",
        "--adapters",
        "3",
        "--prompt-tokens",
        "8..20",
        "--output-tokens",
        "6",
        "--vocab",
        "2000",
        "--requests",
        "9",
        "--repeat",
        "2",
        "--json",
        json.to_str().expect("UTF-8"),
        "--html",
        html.to_str().expect("UTF-8"),
    ]);
    let rows = table.lines().filter(|line| !line.contains("had a cold adapter"));
    assert_eq!(rows.count(), 1 + 6, "{table}");
    let report = read(&json);
    for scenario in report["scenarios"].as_array().expect("scenarios") {
        let runs = scenario["sides"][0]["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), 2);
        for run in runs {
            assert_eq!((&run["completed"], &run["failed"]), (&json!(9), &json!(0)), "{run}");
            assert_eq!(run["output_tokens"], json!(9 * 6), "no answer ends early");
            let prompt_tokens = run["prompt_tokens"].as_u64().expect("a number");
            assert!((9 * 8..=9 * 20).contains(&prompt_tokens), "{prompt_tokens}");
            assert!(run["ttft_ms"]["p50"].as_f64().expect("a number") > 0.0);
        }
    }
    let distinct = &report["scenarios"][4];
    assert_eq!(distinct["name"], "3 streams, distinct");
    assert_eq!(distinct["sides"][0]["median"]["adapters"], 3);
    let page = std::fs::read_to_string(html).expect("a page");
    assert!(page.contains("3 streams, distinct") && page.contains("<svg"));
}

#[test]
fn words_are_tokens_and_arrivals_may_be_open() {
    let (server, data) = made();
    let json = data.path().join("r.json");
    let run = |more: &[&str]| {
        let common = ["run", "--url", &server.url, "--vocab", "2000", "--prompt-form", "text"];
        let lengths = ["--prompt-tokens", "10", "--output-tokens", "4", "--json"];
        let out = json.to_str().expect("UTF-8");
        bench(&[common.as_slice(), lengths.as_slice(), &[out], more].concat());
        read(&json)["scenarios"][0]["sides"][0]["median"].clone()
    };
    let text = run(&["--requests", "5", "--concurrency", "2"]);
    assert_eq!(text["prompt_tokens"], json!(5 * (1 + 10)), "a token begins each text");
    assert_eq!((&text["completed"], &text["output_tokens"]), (&json!(5), &json!(20)));
    let chats = run(&["--requests", "5", "--rate", "200", "--chat"]);
    assert_eq!((&chats["completed"], &chats["failed"]), (&json!(5), &json!(0)));
    assert!(chats["prompt_tokens"].as_u64().expect("a number") > 5 * 11, "roles are tokens too");
}

#[test]
fn cold_requests_are_told_from_warm_ones() {
    let (server, data) = made();
    let (json, adapters) = (data.path().join("r.json"), data.path().join("adapters"));
    let table = bench(&[
        "run",
        "--url",
        &server.url,
        "--concurrency",
        "1",
        "--popularity",
        "uniform",
        "--adapters",
        "3",
        "--vocab",
        "2000",
        "--prompt-tokens",
        "4",
        "--output-tokens",
        "3",
        "--requests",
        "40",
        "--warmup",
        "0",
        "--adapter-files",
        adapters.to_str().expect("UTF-8"),
        "--forget-files",
        "--json",
        json.to_str().expect("UTF-8"),
    ]);
    let report = read(&json);
    let run = &report["scenarios"][0]["sides"][0]["median"];
    // One of the three was loaded for the first request, which is not measured.
    assert_eq!(run["ttft_cold_ms"]["count"], json!(2), "{run}");
    assert_eq!(run["ttft_warm_ms"]["count"], json!(38));
    assert!(run["adapter_wait_ms"]["p50"].as_f64().expect("a number") > 0.0);
    assert_eq!(report["adapter_reads"]["files"], json!(3));
    assert!(table.contains("2 of 40 requests had a cold adapter"), "{table}");
}

#[test]
fn a_soak_leaves_nothing_behind() {
    let (server, data) = made();
    let report = bench(&[
        "soak",
        "--url",
        &server.url,
        "--admin-url",
        &server.admin_url,
        "--admin-token-file",
        server.token_file.to_str().expect("UTF-8"),
        "--adapter-files",
        data.path().join("adapters").to_str().expect("UTF-8"),
        "--adapters",
        "3",
        "--vocab",
        "2000",
        "--requests",
        "200",
        "--streams",
        "16",
        "--changes-per-s",
        "20",
        // What a short run touches for the first time says nothing of leaks.
        "--growth-percent-max",
        "1000",
    ]);
    assert!(report.ends_with("nothing is held\nclean\n"), "{report}");
}
