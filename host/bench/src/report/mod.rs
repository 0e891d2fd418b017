//! What was measured, for programs (JSON), for terminals (a table) and for people who were not
//! there (HTML with charts, in one file). Measures nothing.

mod html;
mod svg;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::BenchError;
use crate::load::ScenarioResult;
use crate::reading::Reads;

/// Changes when a field of the JSON changes its meaning or goes away.
const VERSION: u32 = 1;

/// A finished benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    version: u32,
    /// Seconds since 1970 at its start.
    pub started_unix_s: u64,
    /// The command that made it.
    pub command: String,
    /// What was measured.
    pub scenarios: Vec<ScenarioResult>,
    /// What reading the adapters' files takes, if it was measured.
    pub adapter_reads: Option<Reads>,
}

impl Report {
    /// A report of what `command` measured.
    #[must_use]
    pub fn new(started_unix_s: u64, command: String, scenarios: Vec<ScenarioResult>) -> Self {
        Self { version: VERSION, started_unix_s, command, scenarios, adapter_reads: None }
    }

    /// With what reading the adapters' files takes.
    #[must_use]
    pub fn with_reads(self, reads: Option<Reads>) -> Self {
        Self { adapter_reads: reads, ..self }
    }

    /// Everything, every measurement included.
    #[must_use]
    pub fn json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("maps have names for keys");
        json + "\n"
    }

    /// The medians, in columns.
    #[must_use]
    pub fn table(&self) -> String {
        table::write(self)
    }

    /// A page with the medians as charts and as a table. It loads nothing.
    #[must_use]
    pub fn html(&self) -> String {
        html::write(self)
    }

    /// Writes [`Report::json`] and [`Report::html`] to the files that are wanted.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, json: Option<&Path>, html: Option<&Path>) -> Result<(), BenchError> {
        let files = [(json, Self::json as fn(&Self) -> String), (html, Self::html)];
        for (path, text) in files {
            if let Some(path) = path {
                std::fs::write(path, text(self)).map_err(BenchError::io("write", path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
