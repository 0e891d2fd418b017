//! The door: installs versions, publishes chains, and hands the present chain to requests.
//!
//! Swaps hold a lock for bookkeeping only; compiling and trying a plugin happen outside it, and
//! taking the present chain never waits for either.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;

use crate::capability::Capabilities;
use crate::chain::Chain;
use crate::config::HostConfig;
use crate::error::{HostError, InstallError, SwapError};
use crate::imports::kv::KvStore;
use crate::imports::metrics::GuestMetrics;
use crate::install::{Builder, Source};
use crate::metrics::HostMetrics;
use crate::registry::{Registry, RegistryLimits, Shared};
use crate::runtime::Runtime;
use crate::summary::PluginSummary;

/// Every plugin of the process. One per process: its pool reserves address space for all instances.
pub struct PluginHost {
    runtime: Arc<Runtime>,
    config: HostConfig,
    capabilities: Capabilities,
    metrics: HostMetrics,
    registry: Mutex<Registry>,
    chain: ArcSwap<Chain>,
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").field("chain", &self.chain()).finish_non_exhaustive()
    }
}

impl PluginHost {
    /// A host without plugins.
    ///
    /// # Errors
    /// The engine or its cache could not be set up.
    pub fn new(config: HostConfig, capabilities: Capabilities) -> Result<Arc<Self>, HostError> {
        Ok(Arc::new(Self {
            runtime: Runtime::new(&config)?,
            config,
            capabilities,
            metrics: HostMetrics::new(),
            registry: Mutex::default(),
            chain: ArcSwap::default(),
        }))
    }

    /// Reads, compiles, checks and tries the plugin in `dir`. It is not active yet. Installing the
    /// same content again changes nothing. Takes as long as compiling takes, so it belongs off the
    /// async threads.
    ///
    /// # Errors
    /// Why not; whatever was installed and active still is.
    pub fn install(&self, dir: &Path) -> Result<PluginSummary, InstallError> {
        let source = Source::read(dir, self.config.component_bytes_max)?;
        let name = source.manifest.name.clone();
        let (there, known) = {
            let registry = self.lock();
            (registry.admit(&source, self.limits())?, registry.shared(&name))
        };
        if let Some(there) = there {
            return Ok(there);
        }
        let shared = known.unwrap_or_else(|| self.shared(&name));
        let metrics = self.metrics.of_plugin(&name);
        let builder = Builder {
            runtime: &self.runtime,
            config: &self.config,
            capabilities: &self.capabilities,
            metrics: metrics.clone(),
            shared: Arc::clone(&shared),
        };
        let (manifest, digest) = (source.manifest.clone(), source.digest);
        let plugin = builder.build(source)?;
        let mut registry = self.lock();
        // Another install may have come first while this one compiled.
        let again = Source { manifest, bytes: Vec::new(), digest };
        if let Some(there) = registry.admit(&again, self.limits())? {
            return Ok(there);
        }
        let summary = registry.insert(plugin, shared, self.limits());
        metrics.acted("install");
        tracing::info!(plugin = %name, version = %summary.version, digest = %digest, "installed");
        Ok(summary)
    }

    /// Makes `version`, or the version installed last, the one that new requests use. What was
    /// active becomes the previous version; what was previous is dropped once no request uses it.
    ///
    /// # Errors
    /// There is no such version, or its place is taken.
    pub fn activate(&self, name: &str, version: Option<&str>) -> Result<PluginSummary, SwapError> {
        self.swap(name, "activate", |registry| registry.activate(name, version))
    }

    /// Makes the previous version the active one again, at once, because it was kept compiled.
    ///
    /// # Errors
    /// There is none.
    pub fn rollback(&self, name: &str) -> Result<PluginSummary, SwapError> {
        self.swap(name, "rollback", |registry| registry.rollback(name))
    }

    /// Leaves new requests without the plugin. It can be activated or rolled back to again.
    ///
    /// # Errors
    /// It is not active.
    pub fn deactivate(&self, name: &str) -> Result<PluginSummary, SwapError> {
        self.swap(name, "deactivate", |registry| registry.deactivate(name))
    }

    /// Every version that is installed or in use.
    #[must_use]
    pub fn list(&self) -> Vec<PluginSummary> {
        self.lock().list()
    }

    /// The present chain, to be pinned by one request.
    #[must_use]
    pub fn chain(&self) -> Arc<Chain> {
        self.chain.load_full()
    }

    /// Counts of calls, times, faults and swaps, and the plugins' own metrics.
    #[must_use]
    pub fn metrics(&self) -> &HostMetrics {
        &self.metrics
    }

    fn swap(
        &self,
        name: &str,
        act: &'static str,
        change: impl FnOnce(&mut Registry) -> Result<PluginSummary, SwapError>,
    ) -> Result<PluginSummary, SwapError> {
        let mut registry = self.lock();
        let summary = change(&mut registry)?;
        // Published under the lock, so that chains follow one another as the changes did.
        self.chain.store(Arc::new(registry.chain()));
        drop(registry);
        self.metrics.of_plugin(name).acted(act);
        tracing::info!(plugin = %name, version = %summary.version, act, "plugins changed");
        Ok(summary)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Never held across compiling, guest code or an await.
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn limits(&self) -> RegistryLimits {
        let HostConfig { plugins_max, versions_max, .. } = self.config;
        RegistryLimits { plugins_max, versions_max }
    }

    fn shared(&self, name: &str) -> Arc<Shared> {
        let limits = self.config.imports;
        let metrics = GuestMetrics::new(name, self.metrics.guests.clone(), limits);
        Arc::new(Shared { kv: Arc::new(KvStore::new(limits)), metrics: Arc::new(metrics) })
    }
}
