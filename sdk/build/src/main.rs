//! `plugin-build`: writes new plugins and builds components, without a server. See [`USAGE`].

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use plugin_build::{Builder, BuiltPlugin, Kind, Toolchain, default_target_dir, scaffold};

const USAGE: &str = "usage:
  plugin-build new KIND NAME [--dir DIR] [--sdk DIR]
  plugin-build --out DIR [--target-dir DIR] [--toolchain installed|debian] CRATE_DIR...";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Command {
    New(New),
    Build(Build),
}

/// A crate to write.
#[derive(Debug, PartialEq)]
struct New {
    kind: Kind,
    name: String,
    dir: PathBuf,
    sdk: Option<PathBuf>,
}

/// Crates to build.
#[derive(Debug, PartialEq)]
struct Build {
    out: PathBuf,
    target_dir: Option<PathBuf>,
    toolchain: Option<String>,
    crates: Vec<PathBuf>,
}

impl Command {
    /// What the command line asks for, or what is wrong with it.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.peekable();
        if arguments.next_if(|argument| argument == "new").is_some() {
            return New::parse(arguments).map(Self::New);
        }
        Build::parse(arguments).map(Self::Build)
    }

    fn run(&self) -> Result<(), String> {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => {
                for plugin in build.run()?.iter().filter(|plugin| plugin.changed) {
                    let kib = plugin.component_bytes.div_ceil(1024);
                    let (name, version, dir) =
                        (&plugin.name, &plugin.version, plugin.dir.display());
                    println!("{name}@{version} ({}, {kib} KiB) in {dir}", plugin.kind);
                }
                Ok(())
            }
        }
    }
}

impl New {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut dir, mut sdk) = (None, None);
        let mut words = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--dir" => dir = Some(PathBuf::from(value()?)),
                "--sdk" => sdk = Some(PathBuf::from(value()?)),
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                word => words.push(word.to_owned()),
            }
        }
        let [kind, name] = <[String; 2]>::try_from(words).map_err(|_| "KIND and NAME, please")?;
        let dir = dir.unwrap_or_else(|| PathBuf::from(&name));
        Ok(Self { kind: kind.parse()?, name, dir, sdk })
    }

    fn run(&self) -> Result<(), String> {
        scaffold(self.kind, &self.name, &self.dir, self.sdk.as_deref())
            .map_err(|error| error.to_string())?;
        println!("{} in {}", self.name, self.dir.display());
        Ok(())
    }
}

impl Build {
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

    fn run(&self) -> Result<Vec<BuiltPlugin>, String> {
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
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("plugin-build: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plugin-build: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines() {
        let build = |target_dir: Option<&str>, crates: &[&str]| {
            let (out, target_dir) = ("o".into(), target_dir.map(PathBuf::from));
            let crates = crates.iter().map(PathBuf::from).collect();
            Ok(Command::Build(Build { out, target_dir, toolchain: None, crates }))
        };
        assert_eq!(parse("--out o a b"), build(None, &["a", "b"]));
        assert_eq!(parse("--target-dir t a --out o"), build(Some("t"), &["a"]));
        let new = |dir: &str, sdk: Option<&str>| {
            let (kind, name, sdk) = (Kind::Agent, "x".to_owned(), sdk.map(PathBuf::from));
            Ok(Command::New(New { kind, name, dir: dir.into(), sdk }))
        };
        assert_eq!(parse("new agent x"), new("x", None));
        assert_eq!(parse("new --sdk s agent --dir d x"), new("d", Some("s")));
    }

    #[test]
    fn bad_command_lines() {
        for (line, part) in [
            ("", "no crate"),
            ("a", "--out is missing"),
            ("a --out", "--out needs a value"),
            ("--colour a", "unknown option --colour"),
            ("new", "KIND and NAME"),
            ("new agent", "KIND and NAME"),
            ("new agent x y", "KIND and NAME"),
            ("new actor x", "`actor` is no kind"),
            ("new agent x --dir", "--dir needs a value"),
            ("new agent x --out o", "unknown option --out"),
        ] {
            assert!(parse(line).expect_err(line).contains(part), "{line}");
        }
    }
}
