//! The binary `mortise`: HTTP, configuration, command line, assembly. See ARCHITECTURE.md.
//!
//! Parts: `config` (file and flags), `assemble` (from a configuration to parts), `http` (the public
//! API), `admin` (the operator's), `serve` (listeners, signals, the drain), `telemetry` (spans and metrics
//! for others), `cli` and `client`.
//! Computes nothing: what a request means is `pipeline`'s.

#![forbid(unsafe_code)]

mod admin;
mod assemble;
mod cli;
mod client;
mod config;
mod http;
mod serve;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.run().unwrap_or_else(|error| {
        eprintln!("mortise: {}", causes(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes in one line, without those that an error has told already.
fn causes(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn each_cause_is_told_once() {
        let error = anyhow!("no such file").context("read x: no such file").context("load y");
        assert_eq!(super::causes(&error), "load y: read x: no such file");
        assert_eq!(super::causes(&anyhow!("a").context("b")), "b: a");
    }
}
