//! Which adapters there are, under which alias, which of them are in memory, and who holds them.
//!
//! Parts: `version` (what an alias names), `shared` (the state, and what follows from a change),
//! [`lease`](Lease) (holds and places in the queue), `loader` (the threads that read), [`Folder`]
//! (a directory whose sub-directories are adapters).
//!
//! Registering reads a configuration and a header. Weights are read when somebody asks for them, by
//! loader threads, once for all who ask, and go again when the budget needs their bytes for
//! others and no request holds them. A request never notices: it waits a little, or it doesn't, and
//! what an alias names is the same content before and after, or the request is refused.
//!
//! An alias names one version at a time. A lease pins the generation it was given: unloading or
//! reloading an alias changes what later requests get, never what running ones use.

mod folder;
mod lease;
mod loader;
mod shared;
mod version;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::header::LastHeader;
use crate::index::Indexed;
use crate::metrics::RegistryMetrics;
use crate::{LoraError, ModelShape, blend};

pub use folder::{Folder, Scan};
pub(crate) use lease::Hold;
pub use lease::{Acquire, Lease, LeasePart};
use loader::{Backing, Files};
use shared::{Shared, State};
pub use version::{AdapterInfo, Residence};
use version::{Counts, Origin, Version};

/// Longest alias in bytes.
pub const ALIAS_BYTES_MAX: usize = 256;

/// Limits of a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryConfig {
    /// Bytes of adapter weights held at once, those of loads that run included.
    pub resident_bytes_max: u64,
    /// Aliases.
    pub adapters_max: usize,
    /// Requests that wait for a load.
    pub waiters_max: usize,
    /// Threads that load, at least one.
    pub loaders: usize,
    /// Adapters in a blend; 0 for no blends.
    pub blend_parts_max: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            resident_bytes_max: 8 << 30,
            adapters_max: 65_536,
            waiters_max: 1024,
            loaders: 2,
            blend_parts_max: 8,
        }
    }
}

/// Told of the adapters that a load was for, several for a blend, and the bytes that it brought into memory.
pub type LoadObserver = Box<dyn Fn(&[&str], u64) + Send + Sync>;

/// The adapters of one base model. Shared between threads; its lock is held for look-ups only.
pub struct Registry {
    shared: Arc<Shared>,
    shape: Arc<ModelShape>,
    folder: OnceLock<Folder>,
    last_header: LastHeader,
}

impl Registry {
    /// An empty registry for adapters of the base model `shape`. Starts the loader threads.
    ///
    /// # Errors
    /// [`LoraError::Threads`].
    pub fn new(config: RegistryConfig, shape: ModelShape) -> Result<Self, LoraError> {
        let shape = Arc::new(shape);
        let files = Files { shape: Arc::clone(&shape), start: Instant::now() };
        let registry = Self::over(config, shape, Box::new(files));
        loader::start(&registry.shared)?;
        Ok(registry)
    }

    fn over(config: RegistryConfig, shape: Arc<ModelShape>, backing: Box<dyn Backing>) -> Self {
        let config = RegistryConfig { loaders: config.loaders.max(1), ..config };
        let shared = Arc::new(Shared::new(config, backing));
        Self { shared, shape, folder: OnceLock::new(), last_header: LastHeader::default() }
    }

    /// Has `observer` told of each load that ends well, before those who wait for it. It runs on the
    /// loader threads and must not wait. The first is kept.
    pub fn observe_loads(&self, observer: LoadObserver) {
        let _ = self.shared.observer.set(observer);
    }

    /// Makes `alias` name the PEFT directory `dir` without reading its weights. If the alias was
    /// taken, later requests get the new version. Reads files: not for an async thread.
    ///
    /// # Errors
    /// See [`LoraError`]; the alias keeps naming what it named.
    pub fn register(&self, alias: &str, dir: &Path) -> Result<AdapterInfo, LoraError> {
        let version = self.index(alias, dir, Origin::Named)?;
        self.name(&version)
    }

    /// Begins to load `dir` for `alias`, which goes on naming what it names until
    /// [`Registry::attach`]. Reads files: not for an async thread.
    ///
    /// # Errors
    /// See [`LoraError`].
    pub fn begin_load(&self, alias: &str, dir: &Path) -> Result<Acquire, LoraError> {
        let version = self.index(alias, dir, Origin::Named)?;
        self.shared.change(|state, _| {
            self.check_room(state, alias)?;
            self.shared.acquire(state, &version)
        })
    }

    /// Makes the alias that `lease` was begun for name what it holds.
    ///
    /// # Errors
    /// [`LoraError::TooMany`].
    pub fn attach(&self, lease: &Lease) -> Result<AdapterInfo, LoraError> {
        self.name(lease.version_arc())
    }

    /// [`Registry::begin_load`] and [`Registry::attach`], for threads that may wait.
    ///
    /// # Errors
    /// Why it could not be loaded; the alias keeps naming what it named.
    ///
    /// # Panics
    /// On a thread of an async runtime.
    pub fn load(&self, alias: &str, dir: &Path) -> Result<AdapterInfo, Arc<LoraError>> {
        let lease = self.begin_load(alias, dir)?.wait()?;
        Ok(self.attach(&lease)?)
    }

    /// Takes the alias away. Running requests keep their lease.
    ///
    /// # Errors
    /// No such alias.
    pub fn unload(&self, alias: &str) -> Result<AdapterInfo, LoraError> {
        let now = self.shared.backing.now();
        self.shared.change(|state, _| {
            let unknown = || LoraError::Unknown { alias: alias.to_owned() };
            let version = state.aliases.get(alias).cloned().ok_or_else(unknown)?;
            let (residence, leases) = state.residence(&version);
            let info = version.info(residence, leases, now);
            state.remove(alias);
            if version.origin == Origin::Found {
                state.hidden.insert(alias.to_owned());
            }
            Ok(info)
        })
    }

    /// A lease on what `alias` names or, as `a:0.7+b:0.3`, spells now, or a place among those who wait for it. Returns at once.
    ///
    /// # Errors
    /// No such alias, or too many who wait.
    pub fn acquire(&self, alias: &str) -> Result<Acquire, LoraError> {
        self.shared.change(|state, _| {
            let unknown = || LoraError::Unknown { alias: alias.to_owned() };
            let version = state.find(alias).ok_or_else(unknown)?;
            self.shared.acquire(state, &version)
        })
    }

    /// Whether `alias` names something that [`Registry::acquire`] gives: a blend only once
    /// [`Registry::discover`] has looked at it.
    #[must_use]
    pub fn contains(&self, alias: &str) -> bool {
        self.shared.lock().find(alias).is_some()
    }

    /// All aliases, sorted.
    #[must_use]
    pub fn aliases(&self) -> Vec<String> {
        self.shared.lock().aliases.keys().cloned().collect()
    }

    /// One alias.
    #[must_use]
    pub fn get(&self, alias: &str) -> Option<AdapterInfo> {
        let now = self.shared.backing.now();
        let state = self.shared.lock();
        let version = state.aliases.get(alias)?;
        let (residence, leases) = state.residence(version);
        Some(version.info(residence, leases, now))
    }

    /// All aliases, sorted, with what is known of them.
    #[must_use]
    pub fn list(&self) -> Vec<AdapterInfo> {
        let now = self.shared.backing.now();
        let found: Vec<_> = {
            let state = self.shared.lock();
            let with = |version: &Arc<Version>| (Arc::clone(version), state.residence(version));
            state.aliases.values().map(with).collect()
        };
        let info = |(version, (residence, leases)): (Arc<Version>, _)| {
            version.info(residence, leases, now)
        };
        found.into_iter().map(info).collect()
    }

    /// Bytes of adapter weights in memory and of loads that run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.shared.lock().held()
    }

    /// Counts and durations.
    #[must_use]
    pub fn metrics(&self) -> &RegistryMetrics {
        &self.shared.metrics
    }

    /// Reads what nothing names yet.
    fn index(&self, alias: &str, dir: &Path, origin: Origin) -> Result<Arc<Version>, LoraError> {
        check_alias(alias)?;
        self.check_room(&self.shared.lock(), alias)?;
        let indexed = Indexed::read(dir, &self.shape, &self.last_header)?;
        self.version(alias, indexed, origin, Vec::new())
    }

    /// Looks at a name that spells a blend; true if it is one of adapters that there are.
    fn discover_blend(&self, name: &str) -> Result<bool, LoraError> {
        let Some(parts) = blend::parse(name, self.shared.config.blend_parts_max)? else {
            return Ok(false);
        };
        check_alias(name)?;
        let mut versions = Vec::new();
        for (alias, weight) in parts {
            let named = || self.shared.lock().aliases.get(alias).cloned();
            let version = match named() {
                None if self.discover_in_folder(alias)? => named(),
                found => found,
            };
            let Some(version) = version else { return Ok(false) };
            versions.push((version, weight));
        }
        let dirs: Vec<_> =
            versions.iter().map(|(part, weight)| (part.indexed.dir.as_path(), *weight)).collect();
        let indexed = Indexed::blend(&dirs, &self.shape)?;
        let version = self.version(name, indexed, Origin::Named, versions)?;
        self.shared.change(|state, _| state.name(&version));
        Ok(true)
    }

    /// A version that nothing names yet.
    fn version(
        &self,
        alias: &str,
        indexed: Indexed,
        origin: Origin,
        parts: Vec<(Arc<Version>, f32)>,
    ) -> Result<Arc<Version>, LoraError> {
        let resident_bytes_max = self.shared.config.resident_bytes_max;
        if indexed.bytes > resident_bytes_max {
            let bytes = indexed.bytes;
            return Err(LoraError::BudgetExceeded { bytes, resident_bytes_max });
        }
        let id = {
            let mut state = self.shared.lock();
            state.next_id += 1;
            state.next_id
        };
        Ok(Arc::new(Version {
            id,
            alias: alias.to_owned(),
            indexed,
            origin,
            parts,
            generation: OnceLock::new(),
            seen: Mutex::default(),
            counts: Counts::default(),
        }))
    }

    fn name(&self, version: &Arc<Version>) -> Result<AdapterInfo, LoraError> {
        let now = self.shared.backing.now();
        self.shared.change(|state, _| {
            self.check_room(state, &version.alias)?;
            state.name(version);
            state.hidden.remove(&version.alias);
            let (residence, leases) = state.residence(version);
            Ok(version.info(residence, leases, now))
        })
    }

    fn check_room(&self, state: &State, alias: &str) -> Result<(), LoraError> {
        let adapters_max = self.shared.config.adapters_max;
        if !state.aliases.contains_key(alias) && state.aliases.len() >= adapters_max {
            return Err(LoraError::TooMany { adapters_max });
        }
        Ok(())
    }
}

fn check_alias(alias: &str) -> Result<(), LoraError> {
    let bytes_max = ALIAS_BYTES_MAX;
    if alias.is_empty() || alias.len() > bytes_max || alias.contains(char::is_control) {
        let alias = alias.chars().take(bytes_max).collect();
        return Err(LoraError::Alias { alias, bytes_max });
    }
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Who waits would otherwise keep alive what they wait for.
        self.shared.lock().close();
        self.shared.work.notify_all();
    }
}

#[cfg(test)]
mod flights;
#[cfg(test)]
mod tests;
