//! The training corpora that answers are traced to, by the adapter trained on them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use corpus::Segment;

/// Corpus segments by adapter alias. Cheap to read; the lock is held for a map look-up only.
#[derive(Default)]
pub struct CorpusStore {
    segments: RwLock<BTreeMap<String, Arc<Segment>>>,
}

impl CorpusStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `segment` the corpus of the adapter `alias`.
    pub fn set(&self, alias: &str, segment: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(alias.to_owned(), segment);
    }

    /// Forgets the corpus of `alias`.
    pub fn remove(&self, alias: &str) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(alias);
    }

    /// The corpus of `alias`.
    #[must_use]
    pub fn get(&self, alias: &str) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(alias).cloned()
    }

    /// All corpora in the order of their aliases.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Arc<Segment>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().map(|(alias, segment)| (alias.clone(), Arc::clone(segment))).collect()
    }
}
