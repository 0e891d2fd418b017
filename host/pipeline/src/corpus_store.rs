//! The training corpora that answers are traced to, by the adapter trained on them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ::request::AdapterGeneration;
use corpus::Segment;

/// Corpus segments by adapter alias, each with the generation that was trained on it. Cheap to read;
/// the lock is held for a map look-up only.
#[derive(Default)]
pub struct CorpusStore {
    segments: RwLock<BTreeMap<String, (AdapterGeneration, Arc<Segment>)>>,
}

impl CorpusStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `segment` the corpus of the adapter `alias`, as long as that is `generation`.
    pub fn set(&self, alias: &str, generation: AdapterGeneration, segment: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(alias.to_owned(), (generation, segment));
    }

    /// Forgets the corpus of `alias`.
    pub fn remove(&self, alias: &str) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(alias);
    }

    /// The corpus of `alias`.
    #[must_use]
    pub fn get(&self, alias: &str) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(alias).map(|(_, segment)| Arc::clone(segment))
    }

    /// The corpus of `alias` if it is that of `generation`: an answer is never credited to data that
    /// the adapter which gave it has not seen.
    #[must_use]
    pub fn of(&self, alias: &str, generation: AdapterGeneration) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let (of, segment) = segments.get(alias)?;
        (*of == generation).then(|| Arc::clone(segment))
    }

    /// All corpora in the order of their aliases.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Arc<Segment>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let entry = |(alias, (_, segment)): (&String, &(_, Arc<Segment>))| {
            (alias.clone(), Arc::clone(segment))
        };
        segments.iter().map(entry).collect()
    }
}
