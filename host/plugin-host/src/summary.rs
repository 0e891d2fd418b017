//! What operators see of a plugin.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use request::Digest;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::config::OnFailure;
use crate::manifest::PluginKind;
use crate::plugin::Plugin;

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// New requests use it.
    Active,
    /// It was active before; kept compiled and linked, so that a rollback is at once.
    Previous,
    /// It could be activated.
    Installed,
    /// It is gone for new requests; some that began with it are running.
    Draining,
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSummary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its kind.
    pub kind: PluginKind,
    /// Where it stands.
    pub state: PluginState,
    /// Digest of its component.
    pub digest: Digest,
    /// What its manifest says.
    pub description: String,
    /// What it asks for.
    pub capabilities: BTreeSet<Capability>,
    /// What of that it has.
    pub granted: BTreeSet<Capability>,
    /// What its faults do.
    pub on_failure: OnFailure,
    /// Its place in the chain.
    pub order: u32,
    /// Calls so far.
    pub calls: u64,
    /// Calls that came to no valid result.
    pub faults: u64,
    /// Calls and streams that are open now.
    pub in_flight: u32,
}

impl PluginSummary {
    pub(crate) fn of(plugin: &Plugin, state: PluginState) -> Self {
        let (manifest, policy, counts) = (&plugin.manifest, &plugin.policy, &plugin.counts);
        Self {
            name: manifest.name.clone(),
            version: plugin.version.clone(),
            kind: manifest.kind,
            state,
            digest: plugin.digest,
            description: manifest.description.clone(),
            capabilities: manifest.capabilities.clone(),
            granted: &manifest.capabilities & &policy.grants,
            on_failure: policy.on_failure,
            order: policy.order,
            calls: counts.calls.load(Ordering::Relaxed),
            faults: counts.faults.load(Ordering::Relaxed),
            in_flight: counts.in_flight.load(Ordering::Relaxed),
        }
    }
}
