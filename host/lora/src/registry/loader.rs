//! The threads that read adapters and free them, so that no other thread has to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::version::Version;
use crate::adapter::Weights;
use crate::{LoraError, ModelShape};

/// What the registry needs of the world.
pub(crate) trait Backing: Send + Sync {
    /// Reads the weights of an adapter; they take the bytes that were indexed.
    fn load(&self, version: &Version) -> Result<Weights, LoraError>;

    /// Time since some beginning.
    fn now(&self) -> Duration;
}

/// Files, and the machine's clock.
pub(super) struct Files {
    pub(super) shape: Arc<ModelShape>,
    pub(super) start: Instant,
}

impl Backing for Files {
    fn load(&self, version: &Version) -> Result<Weights, LoraError> {
        let indexed = &version.indexed;
        let check = |bytes| {
            let same = bytes == indexed.bytes;
            let changed = || LoraError::Changed { path: indexed.dir.clone() };
            same.then_some(()).ok_or_else(changed)
        };
        if version.parts.is_empty() {
            let seen = *version.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let weights = Weights::load(&indexed.dir, &self.shape, seen.as_ref(), check)?;
            *version.seen.lock().unwrap_or_else(PoisonError::into_inner) = weights.seen();
            return Ok(weights);
        }
        let part = |(part, weight): &(Arc<Version>, f32)| (part.indexed.dir.clone(), *weight);
        let parts: Vec<_> = version.parts.iter().map(part).collect();
        let parts: Vec<_> = parts.iter().map(|(dir, weight)| (dir.as_path(), *weight)).collect();
        Weights::load_blend(&parts, &self.shape, check)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Starts the loader threads; they end with the registry.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), LoraError> {
    for index in 0..shared.config.loaders {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name(format!("adapters-{index}"))
            .spawn(move || while run(&shared) {})
            .map_err(|source| LoraError::Threads { source })?;
    }
    Ok(())
}

/// Waits for work and does it; false when the registry is gone.
fn run(shared: &Arc<Shared>) -> bool {
    let mut state = shared.lock();
    while !state.closed && state.trash.is_empty() && state.jobs.is_empty() {
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let (closed, trash) = (state.closed, std::mem::take(&mut state.trash));
    let job = if closed { None } else { state.jobs.pop_front() };
    drop(state);
    // Before the load, whose bytes they may have been.
    drop(trash);
    if let Some(version) = job {
        load(shared, &version);
    }
    !closed
}

/// Does one piece of work if there is any, for tests that have no threads.
#[cfg(test)]
pub(super) fn run_pending(shared: &Arc<Shared>) -> bool {
    let (trash, job) = {
        let mut state = shared.lock();
        (std::mem::take(&mut state.trash), state.jobs.pop_front())
    };
    drop(trash);
    match job {
        Some(version) => {
            load(shared, &version);
            true
        }
        None => false,
    }
}

fn load(shared: &Arc<Shared>, version: &Arc<Version>) {
    let started = shared.backing.now();
    // A load that fails as nobody thought of must not leave its waiters behind.
    let result = catch_unwind(AssertUnwindSafe(|| shared.backing.load(version)));
    let abandoned = |_| Err(LoraError::Abandoned { alias: version.alias.clone() });
    let result = result.unwrap_or_else(abandoned);
    let took = shared.backing.now().saturating_sub(started);
    if let (Some(observer), Ok(weights)) = (shared.observer.get(), &result) {
        let parts = version.parts.iter().map(|(part, _)| part.alias.as_str());
        let mut names: Vec<&str> = parts.collect();
        if names.is_empty() {
            names.push(&version.alias);
        }
        observer(&names, weights.bytes());
    }
    shared.change(|state, effects| state.loaded(shared, version, (result, took), effects));
}
