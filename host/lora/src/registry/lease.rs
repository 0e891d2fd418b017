//! What a request holds: a lease on a loaded adapter, or its place among those who wait for one.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use request::AdapterGeneration;
use tokio::sync::oneshot;

use super::shared::Shared;
use super::version::Version;
use crate::{Adapter, LoraError};

/// How a load ended, for one of those who waited.
pub(super) type Outcome = Result<Lease, Arc<LoraError>>;

/// A hold on one generation for the length of a request. Not `Clone`: one request, one lease.
#[derive(Debug)]
pub struct Lease {
    adapter: Arc<Adapter>,
    version: Arc<Version>,
    waited: Option<Duration>,
}

impl Lease {
    pub(super) fn new(adapter: Adapter, version: Arc<Version>, waited: Option<Duration>) -> Self {
        Self { adapter: Arc::new(adapter), version, waited }
    }

    /// How long its load took since it was asked for, the time until there was room included; `None` if
    /// it was in memory.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// The adapter. It stays in memory as long as anybody holds it.
    #[must_use]
    pub fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// Another hold on the same generation, for a request that runs as several sequences. Resolving
    /// the alias again could give a newer one.
    #[must_use]
    pub fn share(&self) -> Self {
        let (adapter, version) = (Arc::clone(&self.adapter), Arc::clone(&self.version));
        Self { adapter, version, waited: self.waited }
    }

    /// Hash of its configuration and weights.
    #[must_use]
    pub fn generation(&self) -> AdapterGeneration {
        self.adapter.generation()
    }

    /// Alias it was acquired by.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.version.alias
    }

    /// Number of what the alias named: another load or registration has another.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.id
    }

    /// The directory it was loaded from; of a blend, that of its first part.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.version.indexed.dir
    }

    /// What it is made of: itself, or the parts of a blend.
    #[must_use]
    pub fn parts(&self) -> Vec<LeasePart<'_>> {
        if self.version.parts.is_empty() {
            return vec![LeasePart::of(&self.version, 1.0)];
        }
        self.version.parts.iter().map(|(part, weight)| LeasePart::of(part, *weight)).collect()
    }

    pub(super) fn version_arc(&self) -> &Arc<Version> {
        &self.version
    }
}

/// One of the adapters that a lease is made of.
#[derive(Clone, Copy, Debug)]
pub struct LeasePart<'a> {
    /// Its alias.
    pub alias: &'a str,
    /// Number of what the alias named.
    pub version: u64,
    /// The directory it was loaded from.
    pub dir: &'a Path,
    /// What its product is multiplied by.
    pub weight: f32,
}

impl<'a> LeasePart<'a> {
    fn of(version: &'a Version, weight: f32) -> Self {
        Self { alias: &version.alias, version: version.id, dir: &version.indexed.dir, weight }
    }
}

/// One lease as the registry counts it. Dropping it may let a load begin, and never frees memory
/// itself: it may happen on a thread that must not wait.
pub(crate) struct Hold {
    shared: Arc<Shared>,
    generation: AdapterGeneration,
}

impl Hold {
    pub(super) fn new(shared: Arc<Shared>, generation: AdapterGeneration) -> Self {
        Self { shared, generation }
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.change(|state, _| state.release(&self.shared, self.generation));
    }
}

/// A lease to come. The load has begun or is queued when this is made, whether or not it is awaited;
/// dropping it gives the place up and leaves the load to others who wait.
#[derive(Debug)]
pub struct Acquire {
    place: Place,
    version: Arc<Version>,
}

#[derive(Debug)]
enum Place {
    Ready(Option<Lease>),
    Waiting(oneshot::Receiver<Outcome>, Ticket),
}

/// One of the places among those who wait.
pub(super) struct Ticket(pub(super) Arc<Shared>);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.waits_no_more();
    }
}

impl Acquire {
    pub(super) fn ready(lease: Lease) -> Self {
        let version = Arc::clone(&lease.version);
        Self { place: Place::Ready(Some(lease)), version }
    }

    pub(super) fn waiting(
        receiver: oneshot::Receiver<Outcome>,
        ticket: Ticket,
        version: Arc<Version>,
    ) -> Self {
        Self { place: Place::Waiting(receiver, ticket), version }
    }

    /// The alias that was asked for.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.version.alias
    }

    /// What the alias names, if it was ever loaded.
    #[must_use]
    pub fn generation(&self) -> Option<AdapterGeneration> {
        self.version.generation.get().copied()
    }

    /// Whether awaiting it will not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.place {
            Place::Ready(_) => true,
            Place::Waiting(receiver, _) => !receiver.is_empty(),
        }
    }

    /// Waits on a thread that may.
    ///
    /// # Errors
    /// Why the adapter could not be loaded.
    ///
    /// # Panics
    /// On a thread of an async runtime.
    pub fn wait(self) -> Result<Lease, Arc<LoraError>> {
        match self.place {
            Place::Ready(lease) => Ok(lease.expect("a new place holds its lease")),
            Place::Waiting(receiver, _ticket) => {
                receiver.blocking_recv().unwrap_or_else(|_| Err(abandoned(&self.version)))
            }
        }
    }
}

impl Future for Acquire {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        match &mut this.place {
            Place::Ready(lease) => {
                Poll::Ready(Ok(lease.take().expect("a future that is ready is not polled again")))
            }
            Place::Waiting(receiver, _) => Pin::new(receiver)
                .poll(context)
                .map(|outcome| outcome.unwrap_or_else(|_| Err(abandoned(&this.version)))),
        }
    }
}

fn abandoned(version: &Version) -> Arc<LoraError> {
    Arc::new(LoraError::Abandoned { alias: version.alias.clone() })
}
