//! `mortise receipt`: what an auditor checks, without a server and without trusting one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::assemble::LEDGER_DIR;

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptCommand {
    /// Checks every record of a log and how they hang together
    Verify {
        /// A data directory, or the ledger in it
        dir: PathBuf,
    },
    /// Checks one receipt as /v1/receipts/{id} gives it: its hash, and that it says what was hashed
    Check {
        /// The receipt's file, or `-` for standard input
        file: PathBuf,
    },
}

impl ReceiptCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Verify { dir } => verify(&dir),
            Self::Check { file } => check(&file),
        }
    }
}

fn verify(dir: &Path) -> Result<ExitCode> {
    let inside = dir.join(LEDGER_DIR);
    let dir = if inside.is_dir() { inside.as_path() } else { dir };
    let report = ledger::verify_dir(dir).with_context(|| format!("verify {}", dir.display()))?;
    // An empty log has its lock file; a wrong folder must not pass for one.
    if report.segments == 0 && !dir.join("LOCK").exists() {
        bail!("{} is no ledger", dir.display());
    }
    let (receipts, files, head) = (report.entries, report.segments, report.head);
    println!("{receipts} receipts in {files} files hang together; the last has hash {head}");
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> Result<ExitCode> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("read {}", file.display()))?;
    let checked = ledger::verify_receipt_json(&text);
    let receipt = checked.with_context(|| format!("check {}", file.display()))?;
    println!("receipt {} is what was hashed: {}", receipt.entry.id, receipt.hash);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_ledger_is_refused_and_an_empty_ledger_is_not() {
        let dir = tempfile::tempdir().expect("folder");
        assert!(verify(dir.path()).is_err_and(|error| error.to_string().contains("no ledger")));
        let config = ledger::LedgerConfig::default();
        drop(ledger::Ledger::open(&dir.path().join(LEDGER_DIR), &config).expect("a ledger"));
        assert!(verify(dir.path()).is_ok());
        assert!(verify(&dir.path().join(LEDGER_DIR)).is_ok());
        assert!(verify(&dir.path().join("none")).is_err());
    }
}
