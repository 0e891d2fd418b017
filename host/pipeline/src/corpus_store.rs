//! The training corpora that answers are traced to, by the adapter trained on them.
//!
//! A corpus lies beside its adapter's weights. Some are kept in memory, for routing and for speed;
//! the others are opened when an answer is to be traced, and the last few stay open.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corpus::Segment;
use tokenization::Tokenizer;

use crate::corpus_file::{CorpusLoadError, load_corpus};

/// The training corpus beside an adapter's weights.
const CORPUS_FILE: &str = "corpus.jsonl";
/// Corpora that stay open after an answer was traced, besides those that are kept.
const RECENT_MAX: usize = 64;

/// Corpus segments by adapter alias, each for one version of the alias. The lock is held for look-ups
/// only.
pub struct CorpusStore {
    cache_dir: PathBuf,
    tokenizer: Arc<Tokenizer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last version of each alias that was seen.
    aliases: BTreeMap<String, Entry>,
    /// Opened for an answer, by version; the last used are at the end.
    recent: VecDeque<(u64, Arc<Segment>)>,
}

struct Entry {
    version: u64,
    /// Of the corpus, as it was when it was first opened.
    digest: [u8; 32],
    /// The corpus, if it is kept.
    kept: Option<Arc<Segment>>,
}

/// What a request knows of the corpus of its adapter, whatever the alias names later.
#[derive(Clone, Debug)]
pub(crate) struct CorpusRef {
    /// What the adapter's part in the answer is multiplied by.
    pub(crate) weight: f32,
    alias: String,
    version: u64,
    dir: PathBuf,
    kept: Option<Arc<Segment>>,
}

impl CorpusStore {
    /// An empty store. Indexed corpora are cached in `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: PathBuf, tokenizer: Arc<Tokenizer>) -> Self {
        Self { cache_dir, tokenizer, state: Mutex::default() }
    }

    /// Indexes the corpus beside the adapter in `dir`, if there is one. Reads files: not for an async
    /// thread.
    ///
    /// # Errors
    /// See [`CorpusLoadError`].
    pub fn load(&self, dir: &Path) -> Result<Option<Arc<Segment>>, CorpusLoadError> {
        let jsonl = dir.join(CORPUS_FILE);
        // A name that leads nowhere is a mistake to be told, not an adapter without a corpus.
        if jsonl.symlink_metadata().is_err() {
            return Ok(None);
        }
        load_corpus(&jsonl, &self.cache_dir, &self.tokenizer).map(Some)
    }

    /// Whether there is a corpus beside the adapter in `dir`.
    #[must_use]
    pub fn is_beside(dir: &Path) -> bool {
        dir.join(CORPUS_FILE).symlink_metadata().is_ok()
    }

    /// Keeps `segment` as the corpus of the adapter `alias`, as long as that is `version`.
    pub fn set(&self, alias: &str, version: u64, segment: Arc<Segment>) {
        let entry = Entry { version, digest: segment.digest(), kept: Some(segment) };
        self.lock().aliases.insert(alias.to_owned(), entry);
    }

    /// Whether the corpus of `alias` is kept, and is that of `version`.
    #[must_use]
    pub fn keeps(&self, alias: &str, version: u64) -> bool {
        self.lock().kept(alias, version).is_some()
    }

    /// Forgets the corpus of `alias`.
    pub fn remove(&self, alias: &str) {
        self.lock().aliases.remove(alias);
    }

    /// The corpus of `alias`, if it is kept.
    #[must_use]
    pub fn get(&self, alias: &str) -> Option<Arc<Segment>> {
        self.lock().aliases.get(alias)?.kept.clone()
    }

    /// All corpora that are kept, in the order of their aliases.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Arc<Segment>)> {
        let state = self.lock();
        let kept = state
            .aliases
            .iter()
            .filter_map(|(alias, entry)| Some((alias.clone(), Arc::clone(entry.kept.as_ref()?))));
        kept.collect()
    }

    /// What the holder of `lease` is to be traced to: one corpus for each adapter in it.
    pub(crate) fn of(&self, lease: &lora::Lease) -> Vec<CorpusRef> {
        let state = self.lock();
        let of_part = |part: lora::LeasePart<'_>| CorpusRef {
            weight: part.weight,
            alias: part.alias.to_owned(),
            version: part.version,
            dir: part.dir.to_owned(),
            kept: state.kept(part.alias, part.version),
        };
        lease.parts().into_iter().map(of_part).collect()
    }

    /// Opens what `of` is to be traced to; `None` if that is not known, or not there any more: an
    /// answer is never credited to data that the adapter which gave it has not seen. Reads files: not
    /// for an async thread.
    pub(crate) fn open(&self, of: &CorpusRef) -> Result<Option<Arc<Segment>>, CorpusLoadError> {
        if let Some(segment) = &of.kept {
            return Ok(Some(Arc::clone(segment)));
        }
        {
            let mut state = self.lock();
            // A name is moved before its corpus is: a request in between finds the corpus now.
            if let Some(segment) = state.kept(&of.alias, of.version) {
                return Ok(Some(segment));
            }
            if let Some(segment) = state.recent(of.version) {
                return Ok(Some(segment));
            }
            if state.aliases.get(&of.alias).is_some_and(|entry| entry.version > of.version) {
                return Ok(None);
            }
        }
        let Some(segment) = self.load(&of.dir)? else { return Ok(None) };
        Ok(self.lock().opened(of, segment))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn kept(&self, alias: &str, version: u64) -> Option<Arc<Segment>> {
        let entry = self.aliases.get(alias).filter(|entry| entry.version == version)?;
        entry.kept.clone()
    }

    fn recent(&mut self, version: u64) -> Option<Arc<Segment>> {
        let at = self.recent.iter().position(|(opened, _)| *opened == version)?;
        let found = self.recent.remove(at)?;
        let segment = Arc::clone(&found.1);
        self.recent.push_back(found);
        Some(segment)
    }

    /// Takes in what was opened, unless it is not what it was the first time.
    fn opened(&mut self, of: &CorpusRef, segment: Arc<Segment>) -> Option<Arc<Segment>> {
        let (version, digest) = (of.version, segment.digest());
        match self.aliases.get(&of.alias) {
            Some(entry) if entry.version > version => return None,
            Some(entry) if entry.version == version && entry.digest != digest => {
                tracing::warn!(adapter = of.alias, "the corpus has changed; it gets no credits");
                return None;
            }
            _ => {}
        }
        self.aliases.insert(of.alias.clone(), Entry { version, digest, kept: None });
        self.recent.push_back((version, Arc::clone(&segment)));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "model":
        {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}"#;

    struct World {
        dir: tempfile::TempDir,
        store: CorpusStore,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("folder");
            std::fs::write(dir.path().join("tokenizer.json"), TOKENIZER).expect("written");
            let tokenizer = Arc::new(Tokenizer::from_dir(dir.path()).expect("a tokenizer"));
            let store = CorpusStore::new(dir.path().join("cache"), tokenizer);
            Self { dir, store }
        }

        /// Writes the corpus of an adapter, which one contributor made.
        fn write(&self, alias: &str, contributor: &str) -> PathBuf {
            let dir = self.dir.path().join(alias);
            std::fs::create_dir_all(&dir).expect("folder");
            let line =
                format!(r#"{{"id": "1", "contributor": "{contributor}", "text": "a b a b"}}"#);
            std::fs::write(dir.join(CORPUS_FILE), line).expect("written");
            dir
        }

        fn at(&self, alias: &str, version: u64) -> CorpusRef {
            let kept = self.store.lock().kept(alias, version);
            let dir = self.dir.path().join(alias);
            CorpusRef { weight: 1.0, alias: alias.to_owned(), version, dir, kept }
        }

        fn owner(&self, at: &CorpusRef) -> Option<String> {
            let segment = self.store.open(at).expect("opened")?;
            Some(segment.owner_name(0).to_owned())
        }
    }

    #[test]
    fn what_is_kept_is_of_one_version() {
        let world = World::new();
        let dir = world.write("x", "old");
        let old = world.store.load(&dir).expect("built").expect("there");
        world.store.set("x", 1, old);
        let before = world.at("x", 1);
        world.write("x", "new");
        let new = world.store.load(&dir).expect("built").expect("there");
        world.store.set("x", 2, new);
        assert_eq!(world.owner(&before).as_deref(), Some("old"), "as it was pinned");
        assert_eq!(world.owner(&world.at("x", 1)), None, "not what a later version has");
        assert_eq!(world.owner(&world.at("x", 2)).as_deref(), Some("new"));
        assert!(world.store.keeps("x", 2) && !world.store.keeps("x", 1));
        assert_eq!(world.store.list().len(), 1);
        world.store.remove("x");
        assert!(world.store.get("x").is_none() && world.store.list().is_empty());
    }

    #[test]
    fn what_is_not_kept_is_opened_and_may_not_change() {
        let world = World::new();
        assert_eq!(world.owner(&world.at("none", 1)), None);
        world.write("x", "first");
        assert_eq!(world.owner(&world.at("x", 1)).as_deref(), Some("first"));
        assert!(world.store.list().is_empty(), "routers see what is kept");
        // Others have been asked for since, and the file is another.
        for version in 0..=RECENT_MAX as u64 {
            let alias = format!("y{version}");
            world.write(&alias, "other");
            assert!(world.owner(&world.at(&alias, 100 + version)).is_some());
        }
        assert!(world.store.lock().recent.len() <= RECENT_MAX);
        world.write("x", "second");
        assert_eq!(world.owner(&world.at("x", 1)), None, "it has not seen that");
        assert_eq!(world.owner(&world.at("x", 2)).as_deref(), Some("second"));
        assert_eq!(world.owner(&world.at("x", 1)), None);
    }

    #[test]
    fn a_corpus_that_can_not_be_read_is_an_error() {
        let world = World::new();
        let dir = world.write("x", "a");
        std::fs::write(dir.join(CORPUS_FILE), "{").expect("written");
        assert!(world.store.open(&world.at("x", 1)).is_err());
    }
}
