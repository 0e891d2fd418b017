//! From a directory to a plugin that could be activated: read, compile aside, check what it imports
//! and exports, link what was granted, and try one instance. Nothing here changes what is served.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use request::Digest;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::{agent, agent_lifecycle};
use crate::capability::{Capabilities, Capability};
use crate::config::{HostConfig, PluginPolicy};
use crate::error::{ImportRefusal, InstallError};
use crate::fault::FaultKind;
use crate::file::read_bounded;
use crate::guest::{Guest, Lent};
use crate::imports;
use crate::instance::{Running, Setting};
use crate::manifest::{Manifest, PluginKind};
use crate::metrics::{Hook, PluginMetrics};
use crate::plugin::{Counts, Exports, Plugin};
use crate::registry::Shared;
use crate::runtime::Runtime;

/// What the log and the guest see in place of a request's id while a plugin is tried.
const PROBE_ID: &str = "install";

/// A plugin as it lies on disk, read and identified.
pub(crate) struct Source {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Source {
    pub(crate) fn read(dir: &Path, component_bytes_max: u64) -> Result<Self, InstallError> {
        let manifest = Manifest::read(dir)?;
        let bytes = read_bounded(&manifest.component_path(dir), component_bytes_max)?;
        let digest = Digest::of(&bytes);
        Ok(Self { manifest, bytes, digest })
    }

    /// `name@version`.
    pub(crate) fn plugin(&self) -> String {
        format!("{}@{}", self.manifest.name, self.manifest.version)
    }
}

/// What a plugin is built with.
pub(crate) struct Builder<'a> {
    pub(crate) runtime: &'a Arc<Runtime>,
    pub(crate) config: &'a HostConfig,
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) metrics: PluginMetrics,
    /// Of the plugin's name.
    pub(crate) shared: Arc<Shared>,
}

impl Builder<'_> {
    /// Compiles, checks, links and tries `source`. Takes as long as compiling takes.
    pub(crate) fn build(&self, source: Source) -> Result<Plugin, InstallError> {
        let plugin = source.plugin();
        let engine = &self.runtime.engine;
        let component = Component::from_binary(engine, &source.bytes).map_err(|error| {
            InstallError::Compile { plugin: plugin.clone(), message: format!("{error:#}") }
        })?;
        let manifest = source.manifest;
        let policies = &self.config.policies;
        let policy = policies.get(&manifest.name).unwrap_or(&self.config.default_policy).clone();
        let kind = manifest.kind;
        for (import, _) in component.component_type().imports(engine) {
            self.allowed(&manifest, &policy, import).map_err(|reason| InstallError::Import {
                plugin: plugin.clone(),
                import: import.to_owned(),
                reason,
            })?;
        }
        let lent = &manifest.capabilities & &policy.grants;
        let world = |error: wasmtime::Error| InstallError::World {
            plugin: plugin.clone(),
            kind,
            message: format!("{error:#}"),
        };
        let linker = imports::linker(engine, kind, &lent).map_err(world)?;
        let pre = linker.instantiate_pre(&component).map_err(world)?;
        let exports = Exports::find(kind, &pre).map_err(world)?;
        let setting = self.setting(&manifest, &policy, &lent);
        let said = probe(&setting, &pre, &exports).map_err(|failed| match failed {
            Probe::World(error) => world(error),
            Probe::Fault(fault) => InstallError::Init { plugin: plugin.clone(), fault },
        })?;
        let version = manifest.version.to_string();
        if said != (manifest.name.clone(), version.clone()) {
            let said = format!("{}@{}", imports::cut(&said.0, 80), imports::cut(&said.1, 80));
            return Err(InstallError::Identity { plugin, said });
        }
        Ok(Plugin {
            manifest,
            version,
            digest: source.digest,
            policy,
            setting,
            pre,
            exports,
            metrics: self.metrics.clone(),
            counts: Counts::default(),
        })
    }

    /// Whether `import` is to be had.
    fn allowed(
        &self,
        manifest: &Manifest,
        policy: &PluginPolicy,
        import: &str,
    ) -> Result<(), ImportRefusal> {
        let interface = import.split_once('@').map_or(import, |(interface, _)| interface);
        let capability = match interface {
            "mortise:core/types"
            | "mortise:core/logging"
            | "mortise:core/config"
            | "mortise:core/metrics"
            | "mortise:core/kv" => return Ok(()),
            "mortise:core/env" if imports::has_env(manifest.kind) => return Ok(()),
            "mortise:core/env" => return Err(ImportRefusal::NotForKind(manifest.kind)),
            "mortise:cap/generate" if manifest.kind != PluginKind::Agent => {
                return Err(ImportRefusal::NotForKind(manifest.kind));
            }
            "mortise:cap/generate" => Capability::Generate,
            "mortise:cap/tokenizer" => Capability::Tokenizer,
            "mortise:cap/corpus" => Capability::Corpus,
            wasi if wasi.starts_with("wasi:") => return Err(ImportRefusal::Wasi),
            _ => return Err(ImportRefusal::Unknown),
        };
        if !manifest.capabilities.contains(&capability) {
            return Err(ImportRefusal::NotAsked(capability));
        }
        if !policy.grants.contains(&capability) {
            return Err(ImportRefusal::NotGranted(capability));
        }
        let available = match capability {
            Capability::Tokenizer => self.capabilities.tokenizer.is_some(),
            Capability::Corpus => self.capabilities.corpus.is_some(),
            Capability::Generate => true,
        };
        if available { Ok(()) } else { Err(ImportRefusal::NotAvailable(capability)) }
    }

    fn setting(
        &self,
        manifest: &Manifest,
        policy: &PluginPolicy,
        lent: &BTreeSet<Capability>,
    ) -> Setting {
        let (settings, settings_json) = imports::config::settings(&manifest.config, &policy.config);
        let tokenizer = self.capabilities.tokenizer.clone();
        let corpus = self.capabilities.corpus.clone();
        let lent = Lent {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            settings,
            settings_json,
            kv: Arc::clone(&self.shared.kv),
            metrics: Arc::clone(&self.shared.metrics),
            tokenizer: tokenizer.filter(|_| lent.contains(&Capability::Tokenizer)),
            corpus: corpus.filter(|_| lent.contains(&Capability::Corpus)),
            limits: self.config.imports,
            log_lines_dropped: self.metrics.log_lines_dropped(),
        };
        Setting {
            runtime: Arc::clone(self.runtime),
            lent: Arc::new(lent),
            limits: self.config.limits.of(manifest.kind),
            kinds: self.config.limits,
            host_version: self.config.host_version.clone(),
        }
    }
}

/// Why a probe failed.
enum Probe {
    World(wasmtime::Error),
    Fault(FaultKind),
}

impl From<FaultKind> for Probe {
    fn from(fault: FaultKind) -> Self {
        Self::Fault(fault)
    }
}

/// Makes one instance, checks the shape of what it exports, and gives what `init` said it is.
fn probe(
    setting: &Setting,
    pre: &InstancePre<Guest>,
    exports: &Exports,
) -> Result<(String, String), Probe> {
    // `Running::start` looks at `lifecycle`, so that only the kind's own interface is left.
    macro_rules! sync {
        ($lifecycle:expr, $hook:expr) => {{
            let mut running = Running::start(setting, pre, $lifecycle, PROBE_ID)?;
            $hook.load(&mut running.store, &running.instance).map_err(Probe::World)?;
            Ok(running.said)
        }};
    }
    match exports {
        Exports::Router(lifecycle, hook) => sync!(lifecycle, hook),
        Exports::Preprocessor(lifecycle, hook) => sync!(lifecycle, hook),
        Exports::Postprocessor(lifecycle, hook) => sync!(lifecycle, hook),
        Exports::Scorer(lifecycle, hook) => sync!(lifecycle, hook),
        Exports::Agent(lifecycle, hook) => probe_agent(setting, pre, lifecycle, hook),
    }
}

/// The same for agents, on a thread with a runtime of its own, because the caller may be inside
/// another or inside none.
fn probe_agent(
    setting: &Setting,
    pre: &InstancePre<Guest>,
    lifecycle: &agent_lifecycle::GuestIndices,
    hook: &agent::GuestIndices,
) -> Result<(String, String), Probe> {
    let no_thread = |error: std::io::Error| {
        let hook = Hook::Init.as_str();
        FaultKind::Trapped { hook, reason: format!("the host has no thread for it: {error}") }
    };
    let probe = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.map_err(no_thread)?.block_on(async {
            let _ticking = setting.runtime.ticker.enter();
            let (mut store, instance, said) =
                crate::agent::start(setting, pre, lifecycle, (PROBE_ID, None)).await?;
            hook.load(&mut store, &instance).map_err(Probe::World)?;
            Ok(said)
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("plugin-probe".to_owned());
        let thread = thread.spawn_scoped(scope, probe).map_err(no_thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
