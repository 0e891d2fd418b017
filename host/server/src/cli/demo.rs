//! `mortise demo`: the shipped model, adapters and plugins, and a command to try.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::config::Settings;
use crate::serve::Ready;

/// Where the shipped model stands below the repository's root.
const TINY: &str = "examples/tiny";
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
        super::start(settings, |ready| println!("{}", invitation(ready)))
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

/// A command to paste.
fn invitation(ready: &Ready) -> String {
    format!(
        "try it:\n  curl -N http://{}/v1/chat/completions -H 'content-type: application/json' \
         -d @{TINY}/ask.json",
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
}
