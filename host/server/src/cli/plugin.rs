//! `mortise plugin`: plugins of a running server, and new ones.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use plugin_build::Kind;
use reqwest::Method;
use serde_json::{Value, json};

use super::admin::AdminArgs;
use crate::client::path_part;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Compiles, checks and tries a plugin on a running server; activates nothing
    Install {
        /// Folder with its plugin.toml, on the server's machine
        dir: PathBuf,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Gives a version to requests that come from now on
    Activate {
        /// NAME@VERSION, or NAME for the newest
        plugin: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Goes back to the version that was active before
    Rollback {
        /// The plugin
        name: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Takes a plugin out of the chain
    Deactivate {
        /// The plugin
        name: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Lists plugins and their versions
    List {
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Writes a new plugin crate that builds and passes its test
    New {
        /// router, preprocessor, postprocessor, scorer or agent
        #[arg(value_parser = parse_kind)]
        kind: Kind,
        /// Its name
        name: String,
        /// Where to write it [default: the name]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The SDK's folder [default: that of the checkout one stands in, else the published SDK]
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Builds plugin crates into components
    Build {
        /// The crates' folders
        #[arg(required = true)]
        crates: Vec<PathBuf>,
        /// Folder that gets <name>/plugin.toml and <name>/plugin.wasm of each
        #[arg(long, value_name = "DIR", default_value = "target/plugins")]
        out: PathBuf,
    },
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        format!("expected one of {}", kinds.join(", "))
    })
}

impl PluginCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Install { dir, server } => {
                // The server's working directory is another.
                let path = std::path::absolute(&dir).context("find the folder")?;
                let body = json!({"path": path});
                print_plugin(&server.call(Method::POST, "/admin/plugins", Some(&body))?);
            }
            Self::Activate { plugin, server } => {
                let (name, version) = match plugin.split_once('@') {
                    Some((name, version)) => (name, Some(version)),
                    None => (plugin.as_str(), None),
                };
                change(&server, name, "activate", &json!({"version": version}))?;
            }
            Self::Rollback { name, server } => change(&server, &name, "rollback", &json!({}))?,
            Self::Deactivate { name, server } => change(&server, &name, "deactivate", &json!({}))?,
            Self::List { server } => {
                let list = server.call(Method::GET, "/admin/plugins", None)?;
                list["plugins"].as_array().into_iter().flatten().for_each(print_plugin);
            }
            Self::New { kind, name, dir, sdk } => {
                let dir = dir.unwrap_or_else(|| PathBuf::from(&name));
                let sdk = sdk.or_else(|| sdk_above(&std::env::current_dir().ok()?));
                plugin_build::scaffold(kind, &name, &dir, sdk.as_deref())?;
                print_next_steps(&dir);
            }
            Self::Build { crates, out } => {
                for plugin in plugin_build::build(&crates, &out)? {
                    println!("{}@{} in {}", plugin.name, plugin.version, plugin.dir.display());
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn change(server: &AdminArgs, name: &str, act: &str, body: &Value) -> Result<()> {
    let path = format!("/admin/plugins/{}/{act}", path_part(name));
    print_plugin(&server.call(Method::POST, &path, Some(body))?);
    Ok(())
}

fn print_plugin(summary: &Value) {
    let text = |key: &str| summary[key].as_str().unwrap_or("?").to_owned();
    let digest: String = text("digest").chars().take(12).collect();
    let (name, version, kind, state) = (text("name"), text("version"), text("kind"), text("state"));
    let (calls, faults) = (&summary["calls"], &summary["faults"]);
    println!("{name}@{version}  {kind}  {state}  {digest}  {calls} calls  {faults} faults");
}

/// The SDK of the checkout that `from` is in.
fn sdk_above(from: &Path) -> Option<PathBuf> {
    let is_sdk = |folder: &PathBuf| {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line == "name = \"mortise-sdk\""))
    };
    from.ancestors().map(|folder| folder.join("sdk")).find(is_sdk)
}

fn print_next_steps(dir: &Path) {
    let dir = dir.display();
    println!("wrote {dir}\n  cargo test --manifest-path {dir}/Cargo.toml");
    println!("  mortise plugin build {dir}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_that_of_the_checkout() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sdk = sdk_above(here).expect("this is a checkout");
        assert_eq!(sdk, here.join("../../sdk").canonicalize().expect("the SDK"));
        let elsewhere = tempfile::tempdir().expect("folder");
        std::fs::create_dir(elsewhere.path().join("sdk")).expect("folder");
        std::fs::write(elsewhere.path().join("sdk/Cargo.toml"), "name = \"other\"").expect("file");
        assert_eq!(sdk_above(elsewhere.path()), None);
    }
}
