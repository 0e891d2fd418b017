//! Rules about single files: length, unsafe, environment, header.

use std::path::{Path, PathBuf};

/// Files longer than this are to be split.
const LINES_MAX: usize = 800;

/// Every Rust file of the repository that is ours, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let root = crate::root();
    let mut pending: Vec<PathBuf> =
        ["host", "sdk", "plugins", "tests"].iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder of the checkout") {
            let path = entry.expect("entry").path();
            if path.is_dir() && !path.ends_with("target") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found
                    .push((relative(&root, &path), std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    assert!(found.len() > 30, "the walk found only {} files", found.len());
    found
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).expect("below the root").display().to_string()
}

#[test]
fn files_are_short_enough_to_read() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines, more than {LINES_MAX}");
    }
}

#[test]
fn unsafe_stands_in_kernels_and_one_mmap_file() {
    for (path, text) in sources() {
        let allowed = path.starts_with("host/kernels/") || path == "host/models/src/weights.rs";
        let found = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word))
        });
        // This file names the words it looks for.
        assert!(allowed || !found || path.ends_with("tidy/files.rs"), "unsafe code in {path}");
    }
}

#[test]
fn every_host_crate_forbids_unsafe_but_two() {
    for (path, text) in sources() {
        let is_root = path.starts_with("host/") && path.ends_with("/src/lib.rs");
        let excepted = ["host/kernels/src/lib.rs", "host/models/src/lib.rs"];
        if is_root && !excepted.contains(&path.as_str()) {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{path} does not forbid unsafe");
        }
    }
}

#[test]
fn only_the_server_reads_the_environment() {
    for (path, text) in sources() {
        let below_server = path.starts_with("host/") && !path.starts_with("host/server/");
        let is_test = path.contains("/tests/") || path.contains("/benches/");
        let build_script = path.ends_with("build.rs");
        if below_server && !is_test && !build_script {
            assert!(!text.contains("env::var"), "{path} reads the environment");
        }
    }
}

#[test]
fn every_host_file_says_what_it_is_for() {
    for (path, text) in sources() {
        if path.starts_with("host/") {
            assert!(text.starts_with("//!"), "{path} has no `//!` header");
        }
    }
}
