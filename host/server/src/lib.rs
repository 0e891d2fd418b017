//! The binary `mortise`: HTTP, configuration, command line, assembly. See ARCHITECTURE.md.
//!
//! Parts: `config` (file and flags), `assemble` (from a configuration to parts), `http` (the public
//! API), `admin` (the operator's), `serve` (listeners, signals, the drain), `cli` and `client`.
//! Computes nothing: what a request means is `pipeline`'s.

#![forbid(unsafe_code)]

mod admin;
mod assemble;
mod cli;
mod client;
mod config;
mod http;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.run().unwrap_or_else(|error| {
        eprintln!("mortise: {error:#}");
        ExitCode::FAILURE
    })
}
