//! `plugin-build --out DIR [--target-dir DIR] [--toolchain T] CRATE_DIR...`: builds plugins, for
//! Makefiles.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use plugin_build::{Builder, BuiltPlugin, Toolchain, default_target_dir};

const USAGE: &str = "usage: plugin-build --out DIR [--target-dir DIR] \
                     [--toolchain installed|debian] CRATE_DIR...";

#[derive(Debug, PartialEq)]
struct Options {
    out: PathBuf,
    target_dir: Option<PathBuf>,
    toolchain: Option<String>,
    crates: Vec<PathBuf>,
}

impl Options {
    /// What the command line asks for, or what is wrong with it.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut out, mut target_dir, mut toolchain) = (None, None, None);
        let mut crates = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--out" => out = Some(value()?.into()),
                "--target-dir" => target_dir = Some(value()?.into()),
                "--toolchain" => toolchain = Some(value()?),
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                folder => crates.push(folder.into()),
            }
        }
        if crates.is_empty() {
            return Err("no crate given".to_owned());
        }
        Ok(Self { out: out.ok_or("--out is missing")?, target_dir, toolchain, crates })
    }

    fn build(&self) -> Result<Vec<BuiltPlugin>, String> {
        let first = &self.crates[0];
        let toolchain = match self.toolchain.as_deref() {
            None => Toolchain::detect(first).map_err(|error| error.to_string())?,
            Some("installed") => Toolchain::installed(first).ok_or("the target is missing")?,
            Some("debian") => Toolchain::debian().ok_or("a Debian package is missing")?,
            Some(other) => return Err(format!("unknown toolchain {other}")),
        };
        let target_dir = self.target_dir.clone().unwrap_or_else(|| default_target_dir(&self.out));
        Builder::new(toolchain, target_dir)
            .build(&self.crates, &self.out)
            .map_err(|error| error.to_string())
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("plugin-build: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match options.build() {
        Ok(built) => {
            for plugin in built.iter().filter(|plugin| plugin.changed) {
                let kib = plugin.component_bytes.div_ceil(1024);
                let (name, version, dir) = (&plugin.name, &plugin.version, plugin.dir.display());
                println!("{name}@{version} ({}, {kib} KiB) in {dir}", plugin.kind);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("plugin-build: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = parse("--out o a b").expect("parses");
        let crates = vec!["a".into(), "b".into()];
        assert_eq!(options, Options { out: "o".into(), target_dir: None, toolchain: None, crates });
        assert_eq!(parse("--target-dir t a --out o").expect("parses").target_dir, Some("t".into()));
        for (line, part) in [
            ("", "no crate"),
            ("a", "--out is missing"),
            ("a --out", "--out needs a value"),
            ("--colour a", "unknown option --colour"),
        ] {
            assert!(parse(line).expect_err(line).contains(part), "{line}");
        }
    }
}
