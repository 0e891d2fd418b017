//! A small host, and plugins installed on it.

use std::sync::Arc;

use plugin_host::{
    CallLimits, Capabilities, Chain, FaultKind, HostConfig, InstallError, KindLimits, Plugin,
    PluginFault, PluginHost, PluginKind, PluginSummary, RequestInfo,
};
use tempfile::TempDir;

use crate::guests::Guest;

/// A host with its plugins' directory, which goes with it.
pub(crate) struct Harness {
    pub(crate) host: Arc<PluginHost>,
    pub(crate) dir: TempDir,
}

/// Limits small enough to be reached at once, deadlines long enough for a busy machine.
pub(crate) fn config() -> HostConfig {
    let limits = |memory_kib: usize, hook_ms_max| CallLimits {
        memory_bytes_max: memory_kib << 10,
        table_elements_max: 1_000,
        hook_ms_max,
        output_bytes_max: 64 << 10,
    };
    HostConfig {
        instances_max: 32,
        core_instances_max: 256,
        limits: KindLimits {
            router: limits(1024, 50),
            preprocessor: limits(1024, 50),
            postprocessor: limits(1024, 50),
            scorer: limits(2048, 50),
            agent: limits(1024, 60_000),
            push_ms_max: 20,
            init_ms_max: 100,
            wall_factor: 1_000,
        },
        ..HostConfig::default()
    }
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with(config(), Capabilities::default())
    }

    pub(crate) fn with(config: HostConfig, capabilities: Capabilities) -> Self {
        let host = PluginHost::new(config, capabilities).expect("a host");
        Self { host, dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn install(&self, guest: &Guest) -> Result<PluginSummary, InstallError> {
        self.host.install(&guest.write(self.dir.path()))
    }

    /// Installs and activates.
    pub(crate) fn activate(&self, guest: &Guest) -> Arc<Plugin> {
        self.install(guest).unwrap_or_else(|error| panic!("{error}"));
        let version = Some(guest.version.as_str());
        self.host.activate(&guest.name, version).unwrap_or_else(|error| panic!("{error}"));
        only(&self.host.chain(), guest.kind, &guest.name)
    }

    pub(crate) fn metrics(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        self.host.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }
}

/// The plugin of that name in the chain.
pub(crate) fn only(chain: &Chain, kind: PluginKind, name: &str) -> Arc<Plugin> {
    let find = |list: &[Arc<Plugin>]| list.iter().find(|plugin| plugin.name() == name).cloned();
    let found = match kind {
        PluginKind::Router => chain.router(),
        PluginKind::Preprocessor => find(chain.preprocessors()),
        PluginKind::Postprocessor => find(chain.postprocessors()),
        PluginKind::Scorer => chain.scorer(),
        PluginKind::Agent => chain.agent(name),
    };
    found.unwrap_or_else(|| panic!("{name} is not in the chain"))
}

pub(crate) fn info() -> RequestInfo {
    RequestInfo {
        id: "chatcmpl-1".to_owned(),
        tenant: "t".to_owned(),
        endpoint: "chat".to_owned(),
        model: "auto".to_owned(),
        adapter: None,
        streaming: true,
    }
}

/// The outcome with the kind of its fault, which must name its plugin.
pub(crate) fn named<T>(outcome: Result<T, PluginFault>, guest: &Guest) -> Result<T, FaultKind> {
    outcome.map_err(|fault| {
        assert_eq!((&*fault.plugin, &*fault.version), (&*guest.name, &*guest.version));
        let text = fault.to_string();
        assert!(text.contains(&format!("{}@{}", guest.name, guest.version)), "{text}");
        fault.kind
    })
}

/// The kind of a fault, which must be one.
pub(crate) fn fault<T: std::fmt::Debug>(
    outcome: Result<T, PluginFault>,
    guest: &Guest,
) -> FaultKind {
    named(outcome, guest).expect_err("a fault")
}
