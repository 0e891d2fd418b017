//! The plugin host with the plugins of the configuration installed and active.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pipeline::HostCapabilities;
use plugin_host::manifest::MANIFEST_FILE;
use plugin_host::{Capabilities, HostConfig, PluginHost, PluginPolicy};

use crate::assemble::{create_dir, folders_with};
use crate::config::Config;
use crate::config::plugin::requested;

/// Starts the host and installs what the configuration names.
pub(super) fn start(
    config: &Config,
    cache_dir: &Path,
    lent: Arc<HostCapabilities>,
) -> Result<Arc<PluginHost>> {
    create_dir(cache_dir)?;
    // Wasmtime wants to know where its cache is, whatever the working directory becomes.
    let cache_dir = std::path::absolute(cache_dir).context("find the cache of plugins")?;
    let capabilities = Capabilities { tokenizer: Some(lent.clone()), corpus: Some(lent) };
    let plugins = PluginHost::new(host_config(config, cache_dir), capabilities)
        .context("start the plugin host")?;
    if let Some(dir) = &config.plugin_dir {
        for path in folders_with(dir, MANIFEST_FILE)? {
            install(&plugins, &path, config, None)?;
        }
    }
    for entry in &config.plugins {
        if let Some(path) = &entry.path {
            install(&plugins, path, config, Some(&entry.name))?;
        }
    }
    let installed = plugins.list();
    for entry in &config.plugins {
        if installed.iter().all(|plugin| plugin.name != entry.name) {
            tracing::info!(plugin = %entry.name, "configured and not installed");
        }
    }
    Ok(plugins)
}

fn host_config(config: &Config, cache_dir: PathBuf) -> HostConfig {
    let limits = &config.limits;
    let grant_requested = config.grant_requested;
    let policies: BTreeMap<_, _> = config
        .plugins
        .iter()
        .enumerate()
        .map(|(place, entry)| (entry.name.clone(), entry.policy(place, grant_requested)))
        .collect();
    let mut default_policy = PluginPolicy::default();
    if grant_requested {
        default_policy.grants = requested();
    }
    HostConfig {
        cache_dir: Some(cache_dir),
        policies,
        default_policy,
        instances_max: limits.plugin_instances_max,
        component_bytes_max: limits.plugin_component_bytes_max,
        plugins_max: limits.plugins_max,
        versions_max: limits.plugin_versions_max,
        ..HostConfig::default()
    }
}

/// Installs the plugin at `path` and activates it unless the configuration says otherwise.
fn install(plugins: &PluginHost, path: &Path, config: &Config, name: Option<&str>) -> Result<()> {
    let named = || format!("install the plugin in {}", path.display());
    let summary = plugins.install(path).with_context(named)?;
    if let Some(name) = name
        && summary.name != name
    {
        bail!("{} holds the plugin {}, not {name}", path.display(), summary.name);
    }
    let entry = config.plugins.iter().find(|entry| entry.name == summary.name);
    if entry.is_none_or(|entry| entry.activate) {
        let activated = plugins.activate(&summary.name, Some(&summary.version));
        activated.with_context(|| format!("activate the plugin in {}", path.display()))?;
    }
    Ok(())
}
