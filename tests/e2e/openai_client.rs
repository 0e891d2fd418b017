//! The unmodified openai package is a client: see `tests/clients/openai_client.py`.

use std::process::Command;

use crate::harness::{Server, heldout, python, root};

/// SHA-256 of `test-key`.
const KEY_HASH: &str = "62af8704764faf8ea82fc61ce9c4c3908b6cb97d463a634e9e587d7c885db0ef";

#[test]
fn the_openai_package_runs_unmodified() {
    let server = Server::demo();
    let keys = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(keys.path(), format!("{KEY_HASH} acme\n")).expect("key file");
    let keyed = Server::with_config(&format!("api_keys_file = {:?}\n", keys.path()));
    let run = Command::new(python())
        .args(["-m", "unittest", "-v", "openai_client"])
        .current_dir(root().join("tests/clients"))
        .env("MORTISE_URL", &server.url)
        .env("MORTISE_KEYED_URL", &keyed.url)
        .env("MORTISE_ADAPTER", "wallet-risk")
        .env("MORTISE_PROMPT", heldout("wallet-risk", 0))
        .output()
        .expect("python runs");
    let report = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{report}\n{}", server.log_text());
    assert!(report.contains("OK"), "{report}");
}
