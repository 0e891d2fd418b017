//! Which versions of which plugins there are, which one is active, and which one can be gone back
//! to. Pure bookkeeping: it compiles nothing and calls nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use request::Digest;
use semver::Version;

use crate::chain::Chain;
use crate::error::{InstallError, SwapError};
use crate::imports::kv::KvStore;
use crate::imports::metrics::GuestMetrics;
use crate::install::Source;
use crate::manifest::PluginKind;
use crate::plugin::Plugin;
use crate::summary::{PluginState, PluginSummary};

/// What all versions of a plugin share.
pub(crate) struct Shared {
    pub(crate) kv: Arc<KvStore>,
    pub(crate) metrics: Arc<GuestMetrics>,
}

/// Digests that are remembered for each name, so that a version cannot change its content.
const DIGESTS_MAX: usize = 10_000;

/// One plugin, by name.
struct Entry {
    kind: PluginKind,
    shared: Arc<Shared>,
    /// In the order they were installed.
    installed: Vec<Arc<Plugin>>,
    active: Option<Version>,
    /// Kept for a rollback, compiled and linked.
    previous: Option<Version>,
    /// No longer to be activated, alive as long as requests hold them.
    retired: Vec<Weak<Plugin>>,
    digests: BTreeMap<Version, Digest>,
}

impl Entry {
    fn find(&self, version: &Version) -> Option<&Arc<Plugin>> {
        self.installed.iter().find(|plugin| plugin.semver() == version)
    }

    fn active(&self) -> Option<&Arc<Plugin>> {
        self.find(self.active.as_ref()?)
    }

    /// Makes `next` active and what was active the previous one. What was previous is retired.
    fn switch(&mut self, next: Option<Version>) {
        if self.active == next {
            return;
        }
        let dropped = self.previous.take();
        self.previous = std::mem::replace(&mut self.active, next);
        if self.previous.is_none() {
            // Nothing was active: what could be gone back to still can, unless it is active now.
            self.previous = dropped.filter(|version| self.active.as_ref() != Some(version));
        } else if let Some(version) = dropped
            && self.active.as_ref() != Some(&version)
        {
            self.retire(&version);
        }
    }

    /// The oldest version that was installed and is neither active nor the previous one.
    fn waiting(&self) -> Option<Version> {
        let waits = |plugin: &&Arc<Plugin>| self.state(plugin) == PluginState::Installed;
        self.installed.iter().find(waits).map(|plugin| plugin.semver().clone())
    }

    fn retire(&mut self, version: &Version) {
        self.retired.retain(|plugin| plugin.strong_count() > 0);
        if let Some(at) = self.installed.iter().position(|plugin| plugin.semver() == version) {
            let plugin = self.installed.remove(at);
            self.retired.push(Arc::downgrade(&plugin));
        }
    }

    fn state(&self, plugin: &Plugin) -> PluginState {
        let version = Some(plugin.semver());
        if self.active.as_ref() == version {
            PluginState::Active
        } else if self.previous.as_ref() == version {
            PluginState::Previous
        } else {
            PluginState::Installed
        }
    }
}

/// Every plugin.
#[derive(Default)]
pub(crate) struct Registry {
    entries: BTreeMap<String, Entry>,
}

/// Limits of the registry.
#[derive(Clone, Copy)]
pub(crate) struct RegistryLimits {
    pub(crate) plugins_max: usize,
    pub(crate) versions_max: usize,
}

impl Registry {
    /// Whether `source` may be installed; its summary if it already is.
    pub(crate) fn admit(
        &self,
        source: &Source,
        limits: RegistryLimits,
    ) -> Result<Option<PluginSummary>, InstallError> {
        let plugin = source.plugin();
        let manifest = &source.manifest;
        let too_many =
            |limit, unit| Err(InstallError::TooMany { plugin: plugin.clone(), limit, unit });
        let Some(entry) = self.entries.get(&manifest.name) else {
            if self.entries.len() >= limits.plugins_max {
                return too_many(limits.plugins_max, "plugins");
            }
            return Ok(None);
        };
        if entry.kind != manifest.kind {
            let (known, got) = (entry.kind, manifest.kind);
            return Err(InstallError::KindChanged { plugin, known, got });
        }
        if let Some(known) = entry.digests.get(&manifest.version)
            && *known != source.digest
        {
            let (known, got) = (*known, source.digest);
            return Err(InstallError::DigestChanged { plugin, known, got });
        }
        if let Some(there) = entry.find(&manifest.version) {
            return Ok(Some(PluginSummary::of(there, entry.state(there))));
        }
        if entry.installed.len() >= limits.versions_max && entry.waiting().is_none() {
            return too_many(limits.versions_max, "versions");
        }
        if entry.digests.len() >= DIGESTS_MAX {
            return too_many(DIGESTS_MAX, "versions ever");
        }
        Ok(None)
    }

    /// What all versions of `name` share, if it is known.
    pub(crate) fn shared(&self, name: &str) -> Option<Arc<Shared>> {
        self.entries.get(name).map(|entry| Arc::clone(&entry.shared))
    }

    /// Adds a version that was admitted under the same lock. Where there are as many as may be, the
    /// oldest that was never activated makes room.
    pub(crate) fn insert(
        &mut self,
        plugin: Plugin,
        shared: Arc<Shared>,
        limits: RegistryLimits,
    ) -> PluginSummary {
        let name = plugin.name().to_owned();
        let entry = self.entries.entry(name).or_insert_with(|| Entry {
            kind: plugin.kind(),
            shared,
            installed: Vec::new(),
            active: None,
            previous: None,
            retired: Vec::new(),
            digests: BTreeMap::new(),
        });
        if entry.installed.len() >= limits.versions_max
            && let Some(oldest) = entry.waiting()
        {
            entry.retire(&oldest);
        }
        entry.digests.insert(plugin.semver().clone(), plugin.digest());
        let plugin = Arc::new(plugin);
        let summary = PluginSummary::of(&plugin, PluginState::Installed);
        entry.installed.push(plugin);
        summary
    }

    /// Makes `version`, or the one installed last, the active one.
    pub(crate) fn activate(
        &mut self,
        name: &str,
        version: Option<&str>,
    ) -> Result<PluginSummary, SwapError> {
        let entry = self.entry(name)?;
        let found = match version {
            None => entry.installed.last(),
            Some(text) => entry.installed.iter().find(|plugin| plugin.version() == text),
        };
        let Some(found) = found.cloned() else {
            let installed: Vec<_> = entry.installed.iter().map(|plugin| plugin.version()).collect();
            return Err(SwapError::UnknownVersion {
                name: name.to_owned(),
                version: crate::imports::cut(version.unwrap_or("any"), 80).to_owned(),
                installed: if installed.is_empty() { "none".into() } else { installed.join(", ") },
            });
        };
        self.place_is_free(name, found.kind())?;
        let entry = self.entry(name)?;
        entry.switch(Some(found.semver().clone()));
        Ok(PluginSummary::of(&found, PluginState::Active))
    }

    /// Makes the previous version the active one, and the other way round.
    pub(crate) fn rollback(&mut self, name: &str) -> Result<PluginSummary, SwapError> {
        let entry = self.entry(name)?;
        let previous = entry.previous.as_ref().and_then(|version| entry.find(version)).cloned();
        let Some(previous) = previous else {
            return Err(SwapError::NoPrevious { name: name.to_owned() });
        };
        self.place_is_free(name, previous.kind())?;
        self.entry(name)?.switch(Some(previous.semver().clone()));
        Ok(PluginSummary::of(&previous, PluginState::Active))
    }

    /// Leaves `name` without an active version.
    pub(crate) fn deactivate(&mut self, name: &str) -> Result<PluginSummary, SwapError> {
        let entry = self.entry(name)?;
        let Some(active) = entry.active().cloned() else {
            return Err(SwapError::NotActive { name: name.to_owned() });
        };
        entry.switch(None);
        Ok(PluginSummary::of(&active, entry.state(&active)))
    }

    /// The chain of all active versions.
    pub(crate) fn chain(&self) -> Chain {
        Chain::new(self.entries.values().filter_map(Entry::active).cloned())
    }

    /// Every version that is installed or still in use, by name and version.
    pub(crate) fn list(&self) -> Vec<PluginSummary> {
        let mut list = Vec::new();
        for entry in self.entries.values() {
            let installed = entry.installed.iter();
            list.extend(installed.map(|plugin| PluginSummary::of(plugin, entry.state(plugin))));
            let retired = entry.retired.iter().filter_map(Weak::upgrade);
            list.extend(retired.map(|plugin| PluginSummary::of(&plugin, PluginState::Draining)));
        }
        list
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, SwapError> {
        let unknown =
            || SwapError::UnknownPlugin { name: crate::imports::cut(name, 80).to_owned() };
        self.entries.get_mut(name).ok_or_else(unknown)
    }

    /// There is one place for a router and one for a scorer.
    fn place_is_free(&self, name: &str, kind: PluginKind) -> Result<(), SwapError> {
        if !matches!(kind, PluginKind::Router | PluginKind::Scorer) {
            return Ok(());
        }
        let other = |entry: &&Entry| entry.kind == kind && entry.active.is_some();
        let others = self.entries.iter().filter(|(other, _)| *other != name);
        match others.map(|(_, entry)| entry).find(other).and_then(Entry::active) {
            None => Ok(()),
            Some(active) => Err(SwapError::PlaceTaken {
                name: name.to_owned(),
                kind,
                active: active.name().to_owned(),
            }),
        }
    }
}
