//! Every limit of the host, with its unit, and the operator's policy for each plugin. Values arrive
//! resolved: nothing here reads a file or the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::manifest::PluginKind;

/// What a plugin's fault does to its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The request fails.
    #[default]
    Reject,
    /// The request goes on as if the plugin were not there.
    Bypass,
}

/// The operator's word on one plugin, by name. The default grants nothing and rejects.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginPolicy {
    /// What its faults do.
    pub on_failure: OnFailure,
    /// What it is lent, of what its manifest asks for.
    pub grants: BTreeSet<Capability>,
    /// Settings, overriding the manifest's key by key.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Tokens an agent's run may use, prompts and answers together.
    pub budget_tokens: u32,
    /// Place among plugins of its kind, smallest first; ties go by name.
    pub order: u32,
}

impl Default for PluginPolicy {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::Reject,
            grants: BTreeSet::new(),
            config: serde_json::Map::new(),
            budget_tokens: 4096,
            order: u32::MAX,
        }
    }
}

/// Limits of one kind of plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Linear memory of an instance, all memories together, in bytes.
    pub memory_bytes_max: usize,
    /// Elements of each table.
    pub table_elements_max: usize,
    /// Processor time of one hook in milliseconds (agents: wall time of the run). Waiting for a
    /// busy machine does not count.
    pub hook_ms_max: u64,
    /// Bytes of all strings and lists that one result or one import call may carry.
    pub output_bytes_max: usize,
}

/// Limits by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindLimits {
    /// Routers.
    pub router: CallLimits,
    /// Preprocessors.
    pub preprocessor: CallLimits,
    /// Postprocessors; `hook_ms_max` holds for `open` and `finish`.
    pub postprocessor: CallLimits,
    /// Scorers.
    pub scorer: CallLimits,
    /// Agents.
    pub agent: CallLimits,
    /// Processor time of a postprocessor's `push` in milliseconds.
    pub push_ms_max: u64,
    /// Processor time of `init` in milliseconds (agents: ticks of the clock it ran through).
    pub init_ms_max: u64,
    /// Wall time of a call, as a multiple of its processor time: the last resort where a guest
    /// waits in an import.
    pub wall_factor: u64,
}

impl KindLimits {
    /// The limits of `kind`.
    #[must_use]
    pub fn of(&self, kind: PluginKind) -> CallLimits {
        match kind {
            PluginKind::Router => self.router,
            PluginKind::Preprocessor => self.preprocessor,
            PluginKind::Postprocessor => self.postprocessor,
            PluginKind::Scorer => self.scorer,
            PluginKind::Agent => self.agent,
        }
    }
}

const MIB: usize = 1 << 20;

impl Default for KindLimits {
    fn default() -> Self {
        let limits = |memory_mib: usize, hook_ms_max, output_mib: usize| CallLimits {
            memory_bytes_max: memory_mib * MIB,
            table_elements_max: 65_536,
            hook_ms_max,
            output_bytes_max: output_mib * MIB,
        };
        Self {
            router: limits(64, 100, 4),
            preprocessor: limits(64, 100, 4),
            postprocessor: limits(32, 100, 1),
            scorer: limits(512, 30_000, 64),
            agent: limits(256, 120_000, 16),
            push_ms_max: 50,
            init_ms_max: 1_000,
            wall_factor: 20,
        }
    }
}

/// Limits of what imports keep for a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportLimits {
    /// Keys and values of one plugin's store, in bytes.
    pub kv_bytes_max: usize,
    /// Entries of one plugin's store.
    pub kv_entries_max: usize,
    /// One key, in bytes.
    pub kv_key_bytes_max: usize,
    /// Log lines of one instance; more are dropped and counted.
    pub log_lines_max: u32,
    /// One log line with its fields, in bytes; longer ones are cut.
    pub log_line_bytes_max: usize,
    /// Metrics of one plugin.
    pub metrics_max: usize,
    /// Name of a metric, in bytes.
    pub metric_name_bytes_max: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self {
            kv_bytes_max: 4 * MIB,
            kv_entries_max: 10_000,
            kv_key_bytes_max: 512,
            log_lines_max: 64,
            log_line_bytes_max: 2048,
            metrics_max: 64,
            metric_name_bytes_max: 64,
        }
    }
}

/// Configuration of a [`crate::PluginHost`].
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// Told to plugins by `init`.
    pub host_version: String,
    /// Where compiled code is kept between starts; `None` compiles each time. Whoever can write
    /// there can run code in the host.
    pub cache_dir: Option<PathBuf>,
    /// The operator's word by plugin name.
    pub policies: BTreeMap<String, PluginPolicy>,
    /// For plugins that `policies` does not name.
    pub default_policy: PluginPolicy,
    /// Limits of calls.
    pub limits: KindLimits,
    /// Limits of imports.
    pub imports: ImportLimits,
    /// Instances that may be alive at once.
    pub instances_max: u32,
    /// Core instances that all components together may have at once.
    pub core_instances_max: u32,
    /// Size of a component in bytes.
    pub component_bytes_max: u64,
    /// Plugins that may be installed.
    pub plugins_max: usize,
    /// Installed versions of one plugin, active and previous included; one more drops the oldest
    /// that waits to be activated.
    pub versions_max: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            cache_dir: None,
            policies: BTreeMap::new(),
            default_policy: PluginPolicy::default(),
            limits: KindLimits::default(),
            imports: ImportLimits::default(),
            instances_max: 1_000,
            core_instances_max: 8_000,
            component_bytes_max: 64 * MIB as u64,
            plugins_max: 64,
            versions_max: 8,
        }
    }
}
