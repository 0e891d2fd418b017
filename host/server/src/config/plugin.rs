//! A `[[plugins]]` table: the operator's word on one plugin.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use plugin_host::{Capability, OnFailure, PluginPolicy};
use serde::Deserialize;

/// The operator's word on one plugin; what is not said is the default of [`PluginPolicy`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginSettings {
    /// Name of the plugin.
    pub(crate) name: String,
    /// What its faults do.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// What it is lent, of what its manifest asks for.
    #[serde(default)]
    pub(crate) grants: BTreeSet<Capability>,
    /// Place among plugins of its kind, smallest first; the place in the list if it is not given.
    pub(crate) order: Option<u32>,
    /// Settings, overriding the manifest's key by key.
    #[serde(default)]
    pub(crate) config: serde_json::Map<String, serde_json::Value>,
    /// Tokens an agent's run may use.
    pub(crate) budget_tokens: Option<u32>,
    /// Directory with its plugin.toml, installed at the start.
    pub(crate) path: Option<PathBuf>,
    /// Whether it is active after the start.
    #[serde(default = "yes")]
    pub(crate) activate: bool,
}

fn yes() -> bool {
    true
}

impl PluginSettings {
    /// What the plugin host is told; `place` is the place in the list.
    pub(crate) fn policy(&self, place: usize, grant_requested: bool) -> PluginPolicy {
        let default = PluginPolicy::default();
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        PluginPolicy {
            on_failure: self.on_failure,
            grants: if grant_requested { requested() } else { self.grants.clone() },
            config: self.config.clone(),
            budget_tokens: self.budget_tokens.unwrap_or(default.budget_tokens),
            order: self.order.unwrap_or(place),
        }
    }
}

/// The grants that give each plugin what its manifest asks for: the host lends no more than that.
pub(crate) fn requested() -> BTreeSet<Capability> {
    Capability::ALL.into_iter().collect()
}

impl FromStr for PluginSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapper {
            plugins: PluginSettings,
        }
        let wrapped = format!("plugins = {{ {text} }}");
        let parsed: Result<Wrapper, _> = toml::from_str(&wrapped);
        parsed.map(|wrapper| wrapper.plugins).map_err(|error| error.message().to_owned())
    }
}
