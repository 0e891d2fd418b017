//! `mortise demo`: the shipped model, adapters and plugins, and a command to try.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::serve::Ready;

/// Where the shipped model stands below the repository's root.
const TINY: &str = "examples/tiny";
/// Prompts that no adapter was trained on, below that.
const HELDOUT: &str = "heldout/wallet-risk.jsonl";
/// Where `make plugins` leaves the shipped plugins.
const PLUGINS: &str = "target/plugins";
/// Where the demo keeps its receipts and caches.
const DATA: &str = "target/demo";

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Root of the repository [default: the nearest folder above that has examples/tiny]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl DemoArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let root = match self.root {
            Some(root) => root,
            None => find_root(&std::env::current_dir().context("find the current directory")?)?,
        };
        let plugins = root.join(PLUGINS);
        if self.settings.plugin_dir.is_none() && !plugins.is_dir() {
            bail!("there are no plugins in {}: build them with `make plugins`", plugins.display());
        }
        let settings = self.settings.over(defaults(&root));
        let prompt = prompt(&root.join(TINY).join(HELDOUT));
        super::start(settings, |ready| {
            // Nobody who reads stdout is no reason to stop serving.
            let _ = writeln!(std::io::stdout(), "try it:\n  {}", invitation(ready, &prompt));
        })
    }
}

/// Where the demo of the checkout that one stands in keeps its data, if one does.
pub(super) fn data_dir() -> Option<PathBuf> {
    let current = std::env::current_dir().ok()?;
    find_root(&current).ok().map(|root| root.join(DATA))
}

fn find_root(from: &Path) -> Result<PathBuf> {
    let root = from.ancestors().find(|folder| folder.join(TINY).is_dir());
    root.map(Path::to_owned).with_context(|| {
        format!("neither {} nor a folder above it has {TINY}; say --root", from.display())
    })
}

fn defaults(root: &Path) -> Settings {
    Settings {
        model: Some(root.join(TINY).join("model")),
        base_name: Some("tiny".to_owned()),
        adapter_dir: Some(root.join(TINY).join("adapters")),
        plugin_dir: Some(root.join(PLUGINS)),
        data_dir: Some(root.join(DATA)),
        grant_requested: Some(true),
        ..Settings::default()
    }
}

/// What a user could ask: the first prompt that no adapter was trained on, of one domain.
fn prompt(heldout: &Path) -> String {
    let first = || {
        let text = std::fs::read_to_string(heldout).ok()?;
        let line: Value = serde_json::from_str(text.lines().next()?).ok()?;
        Some(line["messages"][0]["content"].as_str()?.to_owned())
    };
    first().unwrap_or_else(|| "Hello!".to_owned())
}

/// A command to paste into a shell.
fn invitation(ready: &Ready, prompt: &str) -> String {
    let body = json!({
        "model": "auto",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "stream": true,
        "mortise": {"attribution": true},
    });
    let body = body.to_string().replace('\'', r"'\''");
    format!(
        "curl -N http://{}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        ready.public
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_nearest_folder_with_the_model() {
        let dir = tempfile::tempdir().expect("folder");
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).expect("folder");
        assert!(find_root(&below).is_err());
        std::fs::create_dir_all(dir.path().join(TINY)).expect("folder");
        assert_eq!(find_root(&below).expect("found"), dir.path());
    }

    #[test]
    fn a_prompt_survives_the_shell() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("p.jsonl");
        assert_eq!(prompt(&file), "Hello!");
        let asked = "What's the \"risk\" of $HOME\n`now`?";
        let line = json!({"messages": [{"role": "user", "content": asked}]}).to_string();
        std::fs::write(&file, format!("{line}\n{line}\n")).expect("written");
        let public = "127.0.0.1:1".parse().expect("an address");
        let command = invitation(&Ready { public, admin: public }, &prompt(&file));
        let (_, body) = command.rsplit_once(" -d ").expect("a body");
        let mut shell = std::process::Command::new("sh");
        let said = shell.arg("-c").arg(format!("printf %s {body}")).output().expect("a shell");
        let body: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        assert_eq!(body["messages"][0]["content"], asked);
    }
}
