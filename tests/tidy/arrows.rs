//! Allowed arrows between crates, and the one owner of each foreign crate whose types must not
//! spread. Read from `cargo metadata`, so a dependency counts whether it is used or not.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate, and the crates of ours that it may depend on. A crate that is not here fails the test.
const ARROWS: &[(&str, &[&str])] = &[
    ("request", &[]),
    ("ledger", &[]),
    ("cuda-link", &[]),
    ("simt", &[]),
    ("kernels", &["cuda-link"]),
    ("corpus", &[]),
    ("scheduler", &["request"]),
    ("tokenization", &["request"]),
    ("plugin-host", &["request"]),
    ("lora", &["request", "kernels"]),
    ("sources", &[]),
    ("models", &["kernels", "lora"]),
    ("engine", &["request", "scheduler", "lora", "models", "kernels"]),
    ("pipeline", &["request", "plugin-host", "tokenization", "engine", "lora", "corpus", "ledger"]),
    ("bench", &[]),
    (
        "server",
        &[
            "bench",
            "request",
            "plugin-host",
            "tokenization",
            "engine",
            "lora",
            "models",
            "corpus",
            "ledger",
            "pipeline",
            "plugin-build",
            "sources",
        ],
    ),
    ("plugin-build", &[]),
    ("mortise-sdk", &[]),
];

/// Foreign crate, and the only host crates that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("wasmtime", &["plugin-host"]),
    ("axum", &["server"]),
    ("clap", &["server", "plugin-build"]),
    ("toml", &["server", "plugin-host", "plugin-build", "mortise-sdk"]),
    ("tokenizers", &["tokenization"]),
    ("minijinja", &["tokenization"]),
    ("libsais", &["corpus"]),
    ("candle-core", &["kernels", "lora", "models", "engine"]),
    ("anyhow", &["server"]),
    ("opentelemetry", &["server"]),
    ("opentelemetry-otlp", &["server"]),
    ("reqwest", &["server", "bench"]),
    ("object_store", &["sources"]),
    ("hyper-rustls", &["sources"]),
    ("rustls", &["sources"]),
];

/// Name of each workspace member under `host/` and `sdk/` with the names of its normal and build
/// dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("manifest path");
        let folder = manifest.strip_prefix(crate::root().to_str().expect("UTF-8")).expect("member");
        if !folder.starts_with("/host/") && !folder.starts_with("/sdk/") {
            continue;
        }
        let names = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().expect("name").to_owned());
        found.insert(package["name"].as_str().expect("name").to_owned(), names.collect());
    }
    found
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let dependencies = dependencies();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (from, targets) in &dependencies {
        let allowed = allowed.get(from.as_str()).unwrap_or_else(|| {
            panic!("crate {from} has no line in the table of arrows");
        });
        for to in targets.iter().filter(|name| dependencies.contains_key(*name)) {
            assert!(allowed.contains(&to.as_str()), "forbidden arrow: {from} -> {to}");
        }
    }
    assert_eq!(dependencies.len(), ARROWS.len(), "a line for a crate that is gone");
}

#[test]
fn foreign_types_stay_with_their_owners() {
    for (from, targets) in dependencies() {
        for (foreign, owners) in OWNERS {
            let is_owner = owners.contains(&from.as_str());
            assert!(is_owner || !targets.contains(*foreign), "{from} must not depend on {foreign}");
        }
    }
}
