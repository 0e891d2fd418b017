//! What the registry's door, its leases and its loader threads share: the state behind one lock,
//! changed one step at a time. Nothing is read, freed or sent while the lock is held.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use request::AdapterGeneration;
use tokio::sync::oneshot;

use super::lease::{Acquire, Hold, Lease, Outcome, Ticket};
use super::loader::Backing;
use super::version::{Residence, Version};
use super::{LoadObserver, RegistryConfig};
use crate::adapter::Weights;
use crate::metrics::{Levels, RegistryMetrics};
use crate::tier::{Room, Tier};
use crate::{Adapter, LoraError};

/// Blends that are remembered; who spells a forgotten one has it indexed again.
const BLENDS_MAX: usize = 1024;

/// See the module.
pub(crate) struct Shared {
    pub(super) config: RegistryConfig,
    pub(super) backing: Box<dyn Backing>,
    pub(super) metrics: RegistryMetrics,
    /// Places taken among those who wait.
    pub(super) waiting: AtomicUsize,
    state: Mutex<State>,
    /// Told of each load that ended well.
    pub(super) observer: OnceLock<LoadObserver>,
    /// Notified when there is something for a loader to do.
    pub(super) work: Condvar,
}

/// Weights in memory, and the version whose load brought them there.
struct Resident {
    weights: Arc<Weights>,
    version: Arc<Version>,
}

/// Somebody who waits for a load.
struct Waiter {
    sender: oneshot::Sender<Outcome>,
    since: Duration,
}

/// A load that is queued or runs, with all who wait for it.
struct Flight {
    version: Arc<Version>,
    waiters: Vec<Waiter>,
}

/// Everything that changes.
pub(super) struct State {
    pub(super) aliases: BTreeMap<String, Arc<Version>>,
    /// Blends that were asked for, by the name that spells them.
    blends: BTreeMap<String, Arc<Version>>,
    /// Found in the folder and unloaded since: not to be found again.
    pub(super) hidden: BTreeSet<String>,
    pub(super) next_id: u64,
    tier: Tier<AdapterGeneration>,
    residents: HashMap<AdapterGeneration, Resident>,
    /// How many aliases name a generation.
    names: HashMap<AdapterGeneration, usize>,
    flights: HashMap<u64, Flight>,
    /// Versions whose load has no room or no thread yet, in the order of arrival: nobody is overtaken.
    queue: VecDeque<u64>,
    /// Loads whose bytes are reserved.
    pub(super) jobs: VecDeque<Arc<Version>>,
    /// Loads that have a job or a thread.
    loading: usize,
    /// Weights that nobody needs, for a loader to free.
    pub(super) trash: Vec<Arc<Weights>>,
    pub(super) closed: bool,
}

/// What is to be sent once the lock is released.
#[derive(Default)]
pub(super) struct Effects(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Shared {
    pub(super) fn new(config: RegistryConfig, backing: Box<dyn Backing>) -> Self {
        let state = State {
            aliases: BTreeMap::new(),
            blends: BTreeMap::new(),
            hidden: BTreeSet::new(),
            next_id: 0,
            tier: Tier::new(config.resident_bytes_max),
            residents: HashMap::new(),
            names: HashMap::new(),
            flights: HashMap::new(),
            queue: VecDeque::new(),
            jobs: VecDeque::new(),
            loading: 0,
            trash: Vec::new(),
            closed: false,
        };
        Self {
            config,
            backing,
            metrics: RegistryMetrics::default(),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
            observer: OnceLock::new(),
            work: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the maps whole before anything that can fail, so a poisoned lock is
        // usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change, and the loads that it makes possible.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let (result, work) = {
            let mut state = self.lock();
            let result = change(&mut state, &mut effects);
            state.pump(self, &mut effects);
            self.metrics.observe(&state.levels());
            (result, !(state.jobs.is_empty() && state.trash.is_empty()))
        };
        if work {
            self.work.notify_all();
        }
        for (sender, outcome) in effects.0 {
            // Who has left does not read it; a lease that comes back is dropped here, outside the
            // lock.
            drop(sender.send(outcome));
        }
        result
    }

    /// A place among those who wait.
    fn ticket(self: &Arc<Self>) -> Result<Ticket, LoraError> {
        let room = |waiting| (waiting < self.config.waiters_max).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => {
                self.metrics.waits();
                Ok(Ticket(Arc::clone(self)))
            }
            Err(waiting) => Err(LoraError::Busy { waiting }),
        }
    }

    /// A lease on `version`, or a place in its queue.
    pub(super) fn acquire(
        self: &Arc<Self>,
        state: &mut State,
        version: &Arc<Version>,
    ) -> Result<Acquire, LoraError> {
        let now = self.backing.now();
        version.counts.used(now);
        if let Some(lease) = state.lease(self, version) {
            self.metrics.hit();
            return Ok(Acquire::ready(lease));
        }
        let ticket = self.ticket()?;
        let (sender, receiver) = oneshot::channel();
        state.enqueue(version, Waiter { sender, since: now });
        Ok(Acquire::waiting(receiver, ticket, Arc::clone(version)))
    }
}

impl State {
    /// A lease on the generation of `version`, if that is in memory and still lent.
    fn lease(&mut self, shared: &Arc<Shared>, version: &Arc<Version>) -> Option<Lease> {
        let generation = *version.generation.get()?;
        self.tier.lease(generation).then(|| self.leased(shared, version, (generation, None)))
    }

    /// The lease that the tier has just counted.
    fn leased(
        &self,
        shared: &Arc<Shared>,
        version: &Arc<Version>,
        (generation, waited): (AdapterGeneration, Option<Duration>),
    ) -> Lease {
        let weights = Arc::clone(&self.residents[&generation].weights);
        let hold = Hold::new(Arc::clone(shared), generation);
        Lease::new(Adapter::held(weights, hold), Arc::clone(version), waited)
    }

    fn enqueue(&mut self, version: &Arc<Version>, waiter: Waiter) {
        match self.flights.get_mut(&version.id) {
            Some(flight) => flight.waiters.push(waiter),
            None => {
                let flight = Flight { version: Arc::clone(version), waiters: vec![waiter] };
                self.flights.insert(version.id, flight);
                self.queue.push_back(version.id);
            }
        }
    }

    /// Begins every load that can begin now, in the order of arrival.
    fn pump(&mut self, shared: &Arc<Shared>, effects: &mut Effects) {
        while let Some(id) = self.queue.front().copied() {
            let flight = self.flights.get_mut(&id).expect("what is queued has a flight");
            flight.waiters.retain(|waiter| !waiter.sender.is_closed());
            let (version, abandoned) = (Arc::clone(&flight.version), flight.waiters.is_empty());
            let resident = version.generation.get();
            let resident = resident.is_some_and(|generation| self.tier.contains(*generation));
            // It is their turn, so it does not matter whether it still gives leases to others.
            if abandoned || resident {
                self.queue.pop_front();
                self.deliver(shared, &version, effects);
                continue;
            }
            if self.loading >= shared.config.loaders {
                return;
            }
            match self.tier.reserve(version.indexed.bytes) {
                Room::Made(evicted) => {
                    self.queue.pop_front();
                    self.loading += 1;
                    self.jobs.push_back(version);
                    for generation in evicted {
                        self.evicted(shared, generation);
                    }
                }
                Room::Wait => return self.tier.spend(version.indexed.bytes),
                Room::Never => {
                    self.queue.pop_front();
                    let bytes = version.indexed.bytes;
                    let resident_bytes_max = shared.config.resident_bytes_max;
                    let error = LoraError::BudgetExceeded { bytes, resident_bytes_max };
                    self.fail(shared, &version, &Arc::new(error), effects);
                }
            }
        }
        self.tier.spare();
    }

    /// Gives everybody who waits for `version` a lease on what is in memory.
    fn deliver(&mut self, shared: &Arc<Shared>, version: &Arc<Version>, effects: &mut Effects) {
        let Some(flight) = self.flights.remove(&version.id) else { return };
        let now = shared.backing.now();
        for waiter in flight.waiters.into_iter().filter(|waiter| !waiter.sender.is_closed()) {
            let generation = *version.generation.get().expect("what is in memory was loaded");
            self.tier.lease_loaded(generation);
            let waited = now.saturating_sub(waiter.since);
            shared.metrics.waited(waited);
            let lease = self.leased(shared, version, (generation, Some(waited)));
            effects.0.push((waiter.sender, Ok(lease)));
        }
    }

    /// Tells everybody who waits for `version` that it can't be had. If the alias names another by
    /// now, they wait for that one instead.
    fn fail(
        &mut self,
        shared: &Arc<Shared>,
        version: &Arc<Version>,
        error: &Arc<LoraError>,
        effects: &mut Effects,
    ) {
        let Some(flight) = self.flights.remove(&version.id) else { return };
        let newer = self.find(&version.alias).filter(|named| named.id > version.id);
        if let Some(newer) = newer {
            flight.waiters.into_iter().for_each(|waiter| self.enqueue(&newer, waiter));
            return;
        }
        let now = shared.backing.now();
        for waiter in flight.waiters {
            shared.metrics.waited(now.saturating_sub(waiter.since));
            effects.0.push((waiter.sender, Err(Arc::clone(error))));
        }
    }

    /// The end of a load.
    pub(super) fn loaded(
        &mut self,
        shared: &Arc<Shared>,
        version: &Arc<Version>,
        (result, took): (Result<Weights, LoraError>, Duration),
        effects: &mut Effects,
    ) {
        self.loading -= 1;
        shared.metrics.loaded(took, result.as_ref().ok().map(Weights::bytes));
        let weights = match result {
            Ok(weights) => weights,
            Err(error) => {
                self.tier.cancel(version.indexed.bytes);
                return self.fail(shared, version, &Arc::new(error), effects);
            }
        };
        let generation = weights.generation();
        let parts = version.parts.iter().zip(weights.parts());
        let changed = parts
            .map(|((part, _), generation)| (part, *generation))
            .chain([(version, generation)])
            .find(|(version, generation)| !self.settle(version, *generation));
        if let Some((version_of, _)) = changed {
            let path = version_of.indexed.dir.clone();
            self.tier.cancel(version.indexed.bytes);
            self.trash.push(Arc::new(weights));
            let error = LoraError::Changed { path };
            return self.fail(shared, version, &Arc::new(error), effects);
        }
        version.counts.loads.fetch_add(1, Ordering::Relaxed);
        let weights = Arc::new(weights);
        if self.tier.contains(generation) {
            // One content is in memory once, whatever it is called.
            self.tier.cancel(version.indexed.bytes);
            self.trash.push(weights);
        } else {
            let cost = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.tier.insert(generation, weights.bytes(), cost);
            let version = Arc::clone(version);
            self.residents.insert(generation, Resident { weights, version });
        }
        self.deliver(shared, version, effects);
        if !self.names.contains_key(&generation) && self.tier.keep(generation, false) {
            self.discard(generation);
        }
    }

    /// Ends a lease.
    pub(super) fn release(&mut self, shared: &Arc<Shared>, generation: AdapterGeneration) {
        if !self.tier.release(generation) {
            return;
        }
        // It goes because nobody can ask for it any more, or because a load waits for its bytes.
        match self.names.contains_key(&generation) {
            true => self.evicted(shared, generation),
            false => self.discard(generation),
        }
    }

    fn evicted(&mut self, shared: &Arc<Shared>, generation: AdapterGeneration) {
        shared.metrics.evicted();
        self.residents[&generation].version.counts.evictions.fetch_add(1, Ordering::Relaxed);
        self.discard(generation);
    }

    /// Leaves weights that the tier has given up to a loader.
    fn discard(&mut self, generation: AdapterGeneration) {
        let resident = self.residents.remove(&generation);
        self.trash.extend(resident.map(|resident| resident.weights));
    }

    /// Says what `version` turned out to be; false if it was something else before.
    fn settle(&mut self, version: &Version, generation: AdapterGeneration) -> bool {
        let first = version.generation.set(generation).is_ok();
        if first && self.is_named(version) {
            *self.names.entry(generation).or_default() += 1;
        }
        version.generation.get() == Some(&generation)
    }

    /// What an alias names: an adapter, or a blend of what its parts name now.
    pub(super) fn find(&self, alias: &str) -> Option<Arc<Version>> {
        if let Some(version) = self.aliases.get(alias) {
            return Some(Arc::clone(version));
        }
        let current =
            |version: &&Arc<Version>| version.parts.iter().all(|(part, _)| self.is_named(part));
        self.blends.get(alias).filter(current).cloned()
    }

    /// Whether its alias names this version.
    fn is_named(&self, version: &Version) -> bool {
        let names = self.names_of(version);
        names.get(&version.alias).is_some_and(|named| named.id == version.id)
    }

    fn names_of(&self, version: &Version) -> &BTreeMap<String, Arc<Version>> {
        if version.parts.is_empty() { &self.aliases } else { &self.blends }
    }

    /// Makes the alias of `version` name it.
    pub(super) fn name(&mut self, version: &Arc<Version>) {
        let names = if version.parts.is_empty() { &mut self.aliases } else { &mut self.blends };
        let before = names.insert(version.alias.clone(), Arc::clone(version));
        if let Some(generation) = version.generation.get() {
            *self.names.entry(*generation).or_default() += 1;
            self.tier.keep(*generation, true);
        }
        if let Some(before) = before {
            self.unname(&before);
        }
        while self.blends.len() > BLENDS_MAX {
            let oldest = self.blends.values().min_by_key(|blend| blend.id).cloned();
            let oldest = oldest.expect("more than none");
            self.blends.remove(&oldest.alias);
            self.unname(&oldest);
        }
    }

    /// Takes back what an alias did to its generation.
    fn unname(&mut self, version: &Version) {
        let Some(generation) = version.generation.get() else { return };
        let Some(names) = self.names.get_mut(generation) else { return };
        *names -= 1;
        if *names == 0 {
            self.names.remove(generation);
            if self.tier.keep(*generation, false) {
                self.discard(*generation);
            }
        }
    }

    /// Takes an alias away.
    pub(super) fn remove(&mut self, alias: &str) -> Option<Arc<Version>> {
        let version = self.aliases.remove(alias)?;
        self.unname(&version);
        Some(version)
    }

    /// Where the weights of `version` are, and how many hold them.
    pub(super) fn residence(&self, version: &Version) -> (Residence, usize) {
        let generation = version.generation.get().filter(|found| self.tier.contains(**found));
        match generation {
            Some(generation) => (Residence::Memory, self.tier.leases(*generation)),
            None if self.flights.contains_key(&version.id) => (Residence::Loading, 0),
            None => (Residence::Disk, 0),
        }
    }

    /// Ends everything: who waits is told, no load begins any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.flights.clear();
        self.queue.clear();
    }

    fn levels(&self) -> Levels {
        Levels {
            resident: self.tier.len(),
            resident_bytes: self.tier.held(),
            registered: self.aliases.len(),
            leases: self.tier.leased(),
            loading: self.flights.len(),
        }
    }

    /// Bytes of weights in memory and of loads that run.
    pub(super) fn held(&self) -> u64 {
        self.tier.held()
    }
}
