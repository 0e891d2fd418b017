//! Which adapters are loaded, under which alias, and who holds them.
//!
//! An alias names one generation at a time. A lease pins the generation it was given: unloading or
//! reloading an alias changes what later requests get, never what running ones use. Memory goes
//! with the last holder.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use request::AdapterGeneration;

use crate::{Adapter, LoraError, ModelShape};

/// Longest alias in bytes.
pub const ALIAS_BYTES_MAX: usize = 256;

/// Limits of a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryConfig {
    /// Bytes of adapter weights held at once, those only leased included.
    pub resident_bytes_max: u64,
    /// Aliases.
    pub adapters_max: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { resident_bytes_max: 8 << 30, adapters_max: 4096 }
    }
}

/// One loaded alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Name that requests use.
    pub alias: String,
    /// Hash of configuration and weights.
    pub generation: AdapterGeneration,
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Bytes of weights.
    pub bytes: u64,
    /// Last names of the modules it changes, sorted.
    pub targets: Vec<String>,
    /// Directory it was loaded from.
    pub path: PathBuf,
}

/// A hold on one generation for the length of a request. Not `Clone`: one request, one lease.
#[derive(Debug)]
pub struct Lease {
    adapter: Arc<Adapter>,
    alias: String,
}

impl Lease {
    /// The adapter.
    #[must_use]
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// Another hold on the same generation, for a request that runs as several sequences. Resolving
    /// the alias again could give a newer one.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { adapter: Arc::clone(&self.adapter), alias: self.alias.clone() }
    }

    /// Hash of its configuration and weights.
    #[must_use]
    pub fn generation(&self) -> AdapterGeneration {
        self.adapter.generation()
    }

    /// Alias it was resolved from.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.alias
    }
}

/// Bytes held, shared with every reservation.
#[derive(Debug, Default)]
struct Resident(AtomicU64);

/// Bytes of the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    resident: Arc<Resident>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resident.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Entry {
    adapter: Arc<Adapter>,
    path: PathBuf,
}

#[derive(Default)]
struct State {
    aliases: BTreeMap<String, Entry>,
    /// Every generation still held by someone, so that one content is in memory once.
    generations: HashMap<AdapterGeneration, Weak<Adapter>>,
}

/// The loaded adapters. Shared between threads; files are read outside its lock.
pub struct Registry {
    config: RegistryConfig,
    state: Mutex<State>,
    resident: Arc<Resident>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig) -> Self {
        Self { config, state: Mutex::default(), resident: Arc::default() }
    }

    /// Loads the PEFT directory `dir` for the base model `shape` and makes `alias` name it. If the
    /// alias was taken, later requests get the new generation; the old one goes with its last
    /// lease. Reads files: not for an async thread.
    ///
    /// # Errors
    /// See [`LoraError`]; the alias keeps naming what it named.
    pub fn load(
        &self,
        alias: &str,
        dir: &Path,
        shape: &ModelShape,
    ) -> Result<AdapterInfo, LoraError> {
        if alias.is_empty() || alias.len() > ALIAS_BYTES_MAX || alias.contains(char::is_control) {
            let alias = alias.chars().take(ALIAS_BYTES_MAX).collect();
            return Err(LoraError::Alias { alias, bytes_max: ALIAS_BYTES_MAX });
        }
        self.check_room(&self.lock(), alias)?;
        let adapter = Adapter::load(dir, shape, |bytes| self.reserve(bytes).map(Some))?;
        // Dropped after the lock is released: freeing weights can take a while.
        let (info, replaced) = {
            let mut state = self.lock();
            self.check_room(&state, alias)?;
            state.generations.retain(|_, held| held.strong_count() > 0);
            let generation = adapter.generation();
            let held = state.generations.get(&generation).and_then(Weak::upgrade);
            let adapter = held.filter(|held| held.fits(shape)).unwrap_or_else(|| {
                let adapter = Arc::new(adapter);
                state.generations.insert(generation, Arc::downgrade(&adapter));
                adapter
            });
            let entry = Entry { adapter, path: dir.to_owned() };
            let info = info(alias, &entry);
            (info, state.aliases.insert(alias.to_owned(), entry))
        };
        drop(replaced);
        Ok(info)
    }

    /// Takes the alias away. Running requests keep their lease.
    ///
    /// # Errors
    /// No such alias.
    pub fn unload(&self, alias: &str) -> Result<AdapterInfo, LoraError> {
        let entry = self.lock().aliases.remove(alias);
        let entry = entry.ok_or_else(|| LoraError::Unknown { alias: alias.to_owned() })?;
        Ok(info(alias, &entry))
    }

    /// A lease on what `alias` names now.
    #[must_use]
    pub fn resolve(&self, alias: &str) -> Option<Lease> {
        let adapter = Arc::clone(&self.lock().aliases.get(alias)?.adapter);
        Some(Lease { adapter, alias: alias.to_owned() })
    }

    /// All aliases, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<AdapterInfo> {
        self.lock().aliases.iter().map(|(alias, entry)| info(alias, entry)).collect()
    }

    /// Bytes of adapter weights held now, by aliases or leases.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.resident.0.load(Ordering::Acquire)
    }

    fn check_room(&self, state: &State, alias: &str) -> Result<(), LoraError> {
        let adapters_max = self.config.adapters_max;
        if !state.aliases.contains_key(alias) && state.aliases.len() >= adapters_max {
            return Err(LoraError::TooMany { adapters_max });
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation, LoraError> {
        let resident_bytes_max = self.config.resident_bytes_max;
        let taken = self.resident.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= resident_bytes_max)
        });
        match taken {
            Ok(_) => Ok(Reservation { resident: Arc::clone(&self.resident), bytes }),
            Err(resident) => Err(LoraError::BudgetExceeded { bytes, resident, resident_bytes_max }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock can leave the maps half changed, so a poisoned lock is usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info(alias: &str, entry: &Entry) -> AdapterInfo {
    AdapterInfo {
        alias: alias.to_owned(),
        generation: entry.adapter.generation(),
        rank_max: entry.adapter.rank_max(),
        bytes: entry.adapter.bytes(),
        targets: entry.adapter.targets().to_vec(),
        path: entry.path.clone(),
    }
}

#[cfg(test)]
mod tests;
