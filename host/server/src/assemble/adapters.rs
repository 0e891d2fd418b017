//! Adapters with their corpora: named ones loaded at the start, those of the folder found there, all
//! of them changed by the admin API. What one of them is, and whether it is in memory, `lora` decides.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use lora::{AdapterInfo, Folder, Lease, LoraError, ModelShape, Registry, RegistryConfig, Scan};
use pipeline::{CorpusLoadError, CorpusStore};
use serde::Serialize;
use sources::{Fetched, Location, SourceError, Sources};

use crate::assemble::is_free_name;
use crate::config::{Config, Limits};

/// Refused directories that are logged one by one.
const REFUSED_LOGGED_MAX: usize = 20;

/// What adapters are loaded with.
pub(crate) struct AdapterParts {
    pub(crate) shape: ModelShape,
    pub(crate) corpora: Arc<CorpusStore>,
    /// A name that no adapter may have.
    pub(crate) base_name: String,
    /// Directories below which [`Adapters::load_below_roots`] loads.
    pub(crate) roots: Vec<PathBuf>,
    pub(crate) limits: Limits,
    /// What fetches adapters that lie elsewhere, if that is allowed.
    pub(crate) sources: Option<Sources>,
}

/// Why an adapter was not loaded or unloaded. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdapterError {
    /// Requests would not find it.
    #[error(
        "an adapter can't be called {name:?}: a name has no white space and no control characters, no \
         empty part, `.` or `..` between its slashes, and is not the base model, `auto` or an agent"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Somebody has the name, and was not to lose it.
    #[error(
        "the lora adapter `{name}` has already been loaded: set `load_inplace` to load it anew"
    )]
    AlreadyLoaded {
        /// The name.
        name: String,
    },
    /// A path that leads out of the directories where adapters may lie.
    #[error("{path} is not a directory below one that adapters may be loaded from", path = path.display())]
    OutsideRoots {
        /// As it was asked for.
        path: PathBuf,
    },
    /// It lies elsewhere, and could not be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Other adapters are in use.
    #[error("no memory became free for the adapter within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// Its files, its name or the room for it.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// Its files, told to all who waited for them.
    #[error(transparent)]
    Load(#[from] Arc<LoraError>),
    /// Its corpus.
    #[error(transparent)]
    Corpus(#[from] CorpusLoadError),
}

/// An adapter as operators see it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct AdapterView {
    /// Its name in requests.
    pub(crate) name: String,
    /// Hash of its configuration and weights, in hex; `null` before it was first loaded.
    pub(crate) generation: Option<String>,
    /// Largest rank of any module.
    pub(crate) rank_max: usize,
    /// Bytes of weights in memory, when they are there.
    pub(crate) bytes: u64,
    /// Last names of the modules it changes.
    pub(crate) targets: Vec<String>,
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Where it was fetched from, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Where its weights are: `disk`, `loading` or `memory`.
    pub(crate) residence: &'static str,
    /// Requests that hold it.
    pub(crate) leases: usize,
    /// Requests that asked for it.
    pub(crate) uses: u64,
    /// Times its weights were loaded.
    pub(crate) loads: u64,
    /// Times its weights had to go for others.
    pub(crate) evictions: u64,
    /// Seconds since the last request; `null` before the first.
    pub(crate) unused_s: Option<f64>,
    /// Its training corpus, if there is one beside it that is in memory.
    pub(crate) corpus: Option<CorpusView>,
}

/// A corpus as operators see it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct CorpusView {
    /// Digest of the indexed segment, in hex.
    pub(crate) digest: String,
    /// Documents in it.
    pub(crate) documents: u32,
    /// Tokens in it.
    pub(crate) tokens: u64,
    /// Contributors of its documents.
    pub(crate) contributors: u32,
}

/// What a scan of the folder changed.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct ScanView {
    /// Adapters that are new.
    pub(crate) added: usize,
    /// Adapters whose files were written since they were found.
    pub(crate) changed: usize,
    /// Adapters whose directory is gone.
    pub(crate) removed: usize,
    /// Directories that could not be used, with the reason.
    pub(crate) refused: Vec<RefusedView>,
}

/// A directory that is no adapter.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct RefusedView {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

/// The adapters of a server.
pub(crate) struct Adapters {
    parts: AdapterParts,
    registry: Arc<Registry>,
    /// Held while an alias and its corpus change together; never while files are read.
    changes: Mutex<()>,
    /// By name, what was fetched for it, and from where: its files are to stay.
    fetched: Mutex<HashMap<String, (Location, Fetched)>>,
}

/// Files that are to be loaded.
pub(crate) enum Files {
    /// A directory of this machine, as it was asked for.
    At(PathBuf),
    /// What was fetched from an address.
    Fetched(Location, Fetched),
}

impl Files {
    fn dir(&self) -> &Path {
        match self {
            Self::At(path) => path,
            Self::Fetched(_, fetched) => fetched.dir(),
        }
    }
}

impl Adapters {
    /// No adapters yet.
    pub(crate) fn new(parts: AdapterParts) -> Result<Self, LoraError> {
        let limits = &parts.limits;
        let config = RegistryConfig {
            resident_bytes_max: limits.adapter_bytes_max,
            adapters_max: limits.adapters_max,
            waiters_max: limits.queue_max,
            loaders: limits.adapter_loads_max,
            blend_parts_max: limits.blend_adapters_max,
        };
        let registry = Arc::new(Registry::new(config, parts.shape.clone())?);
        Ok(Self { parts, registry, changes: Mutex::default(), fetched: Mutex::default() })
    }

    /// Aliases and their generations.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Loads every adapter that the configuration names, and finds those of its folder.
    pub(crate) fn start(&self, config: &Config) -> Result<()> {
        for named in &config.adapters {
            let (name, path) = (&named.name, &named.path);
            let files = self.files(name, path.clone(), true);
            let loaded = tokio::runtime::Handle::current().block_on(files).and_then(|files| {
                let lease = self.begin(name, files.dir())?.wait()?;
                self.finish(&lease, files)
            });
            loaded.with_context(|| format!("load the adapter {name} from {}", path.display()))?;
        }
        let Some(dir) = &config.adapter_dir else { return Ok(()) };
        let started = std::time::Instant::now();
        let accepts = |name: &str| is_free_name(name);
        let scan = self.registry.watch(Folder { dir: dir.clone(), accepts })?;
        self.scanned(&scan, started.elapsed());
        Ok(())
    }

    /// Looks for what came, changed and went in the folder.
    pub(crate) fn scan(&self) -> Result<ScanView, AdapterError> {
        let started = std::time::Instant::now();
        let scan = self.registry.scan()?;
        self.scanned(&scan, started.elapsed());
        let refused = scan.refused.into_iter().map(|(path, error)| {
            let reason = error.to_string();
            RefusedView { path, reason }
        });
        let refused = refused.collect();
        Ok(ScanView { added: scan.added, changed: scan.changed, removed: scan.removed, refused })
    }

    fn scanned(&self, scan: &Scan, took: Duration) {
        // A name that the folder has no right to: requests for it would never get there.
        if self.registry.contains(&self.parts.base_name) {
            tracing::warn!(name = self.parts.base_name, "an adapter has the base model's name");
            drop(self.registry.unload(&self.parts.base_name));
        }
        let (added, changed, removed) = (scan.added, scan.changed, scan.removed);
        let (refused, ms) = (scan.refused.len(), took.as_millis());
        tracing::info!(added, changed, removed, refused, ms, "folder of adapters scanned");
        for (path, error) in scan.refused.iter().take(REFUSED_LOGGED_MAX) {
            tracing::warn!(path = %path.display(), %error, "not an adapter");
        }
        self.keep_corpora();
    }

    /// Keeps the corpora of as many adapters as may be kept; the others are opened when needed.
    fn keep_corpora(&self) {
        let corpora = &self.parts.corpora;
        let infos = self.registry.list();
        let stale = corpora.list().into_iter().map(|(alias, _)| alias);
        for alias in stale.filter(|alias| !self.registry.contains(alias)) {
            corpora.remove(&alias);
        }
        let with = infos.into_iter().filter(|info| CorpusStore::is_beside(&info.path));
        for info in with.take(self.parts.limits.corpora_max) {
            if corpora.keeps(&info.alias, info.version) {
                continue;
            }
            match corpora.load(&info.path) {
                Ok(Some(segment)) => corpora.set(&info.alias, info.version, segment),
                Ok(None) => {}
                Err(error) => tracing::warn!(adapter = info.alias, %error, "no corpus"),
            }
        }
    }

    /// Finds the files of an adapter that is to be called `name`: fetches them, if `path` is an address
    /// that the operator allowed. Here alone a fetch is waited for, on no thread.
    pub(crate) async fn files(
        &self,
        name: &str,
        path: PathBuf,
        in_place: bool,
    ) -> Result<Files, AdapterError> {
        self.check_name(name)?;
        self.check_new(name, in_place)?;
        let Some(text) = path.to_str().filter(|text| Location::is_one(text)) else {
            return Ok(Files::At(path));
        };
        let location: Location = text.parse()?;
        let not_allowed = || SourceError::NotAllowed { location: location.to_string() };
        let sources = self.parts.sources.as_ref().ok_or_else(not_allowed)?;
        let fetched = sources.fetch(&location).await?;
        Ok(Files::Fetched(location, fetched))
    }

    /// Loads `files` as `name`, the corpus first, and waits for it. If the name was taken, requests that
    /// come later get the new generation. For a thread of a runtime that may wait.
    pub(crate) fn load(&self, name: &str, files: Files) -> Result<AdapterView, AdapterError> {
        let started = std::time::Instant::now();
        let acquire = self.begin(name, files.dir())?;
        let seconds = self.parts.limits.adapter_wait_s_max;
        let waiting = tokio::time::timeout(Duration::from_secs(seconds), acquire);
        let lease = tokio::runtime::Handle::current().block_on(waiting);
        let view = self.finish(&lease.map_err(|_| AdapterError::Timeout { seconds })??, files)?;
        let generation = view.generation.as_deref().map(|hex| &hex[..12]);
        let corpus_tokens = view.corpus.as_ref().map_or(0, |corpus| corpus.tokens);
        let ms = started.elapsed().as_millis();
        tracing::info!(adapter = name, generation, corpus_tokens, ms, "adapter loaded");
        Ok(view)
    }

    /// As [`Adapters::load`], for callers who may not read every file of the machine: a directory must
    /// lie in one of the roots, with all its links followed; a relative one begins at the first root.
    /// What may be fetched is the operator's word, whoever asks.
    pub(crate) fn load_below_roots(
        &self,
        name: &str,
        files: Files,
        in_place: bool,
    ) -> Result<AdapterView, AdapterError> {
        self.check_new(name, in_place)?;
        let files = match files {
            Files::At(path) => Files::At(below(&self.parts.roots, &path)?),
            fetched @ Files::Fetched(..) => fetched,
        };
        self.load(name, files)
    }

    fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        if is_free_name(name) && name != self.parts.base_name {
            return Ok(());
        }
        Err(AdapterError::NameTaken { name: name.chars().take(80).collect() })
    }

    fn check_new(&self, name: &str, in_place: bool) -> Result<(), AdapterError> {
        if in_place || !self.registry.contains(name) {
            return Ok(());
        }
        Err(AdapterError::AlreadyLoaded { name: name.to_owned() })
    }

    fn begin(&self, name: &str, path: &Path) -> Result<lora::Acquire, AdapterError> {
        self.check_name(name)?;
        Ok(self.registry.begin_load(name, path)?)
    }

    /// Gives what was loaded its name and its corpus.
    fn finish(&self, lease: &Lease, files: Files) -> Result<AdapterView, AdapterError> {
        let corpora = &self.parts.corpora;
        let corpus = corpora.load(lease.dir())?;
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let info = self.registry.attach(lease)?;
        self.keep(&info.alias, files);
        match corpus {
            Some(segment) => corpora.set(&info.alias, info.version, segment),
            None => corpora.remove(&info.alias),
        }
        Ok(self.view(info))
    }

    /// Keeps the fetched files of what `name` stands for now, and no others.
    fn keep(&self, name: &str, files: Files) {
        let mut kept = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match files {
            Files::Fetched(location, fetched) => kept.insert(name.to_owned(), (location, fetched)),
            Files::At(_) => kept.remove(name),
        };
        drop(kept);
        drop(before);
    }

    fn source(&self, name: &str) -> Option<String> {
        let kept = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).map(|(location, _)| location.to_string())
    }

    /// Takes the name away. Running requests keep what they have.
    pub(crate) fn unload(&self, name: &str) -> Result<AdapterView, AdapterError> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view(self.registry.unload(name)?);
        self.parts.corpora.remove(name);
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        tracing::info!(adapter = name, "adapter unloaded");
        Ok(view)
    }

    /// All adapters, by name.
    pub(crate) fn list(&self) -> Vec<AdapterView> {
        self.registry.list().into_iter().map(|info| self.view(info)).collect()
    }

    fn view(&self, info: AdapterInfo) -> AdapterView {
        let corpus = self.parts.corpora.get(&info.alias).map(|segment| CorpusView {
            digest: hex::encode(segment.digest()),
            documents: segment.documents(),
            tokens: segment.tokens(),
            contributors: segment.owners(),
        });
        AdapterView {
            source: self.source(&info.alias),
            name: info.alias,
            generation: info.generation.map(|generation| generation.to_string()),
            rank_max: info.rank_max,
            bytes: info.bytes,
            targets: info.targets,
            path: info.path,
            residence: info.residence.as_str(),
            leases: info.leases,
            uses: info.uses,
            loads: info.loads,
            evictions: info.evictions,
            unused_s: info.unused_for.map(|unused| unused.as_secs_f64()),
            corpus,
        }
    }
}

/// `path` without links, if it is in one of `roots`.
fn below(roots: &[PathBuf], path: &Path) -> Result<PathBuf, AdapterError> {
    let outside = || AdapterError::OutsideRoots { path: path.to_owned() };
    // An absolute path replaces what it is joined to.
    let from = roots.first().ok_or_else(outside)?;
    let found = from.join(path).canonicalize().map_err(|_| outside())?;
    let roots = roots.iter().filter_map(|root| root.canonicalize().ok());
    let inside = roots.into_iter().any(|root| found != root && found.starts_with(root));
    if inside { Ok(found) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_roots() {
        let dir = tempfile::tempdir().expect("folder");
        let at = |path: &str| dir.path().join(path);
        for path in ["one/a/b", "two/c", "outside/d", "one-more/e"] {
            std::fs::create_dir_all(at(path)).expect("made");
        }
        std::os::unix::fs::symlink(at("outside/d"), at("one/link")).expect("linked");
        std::os::unix::fs::symlink(at("two/c"), at("one/inside")).expect("linked");
        let roots = [at("one"), at("two"), at("nowhere")];
        for (path, expect) in [
            (at("one/a"), "one/a"),
            (at("one/a/b"), "one/a/b"),
            (at("one/../two/c"), "two/c"),
            (at("one/inside"), "two/c"),
            (PathBuf::from("a/b"), "one/a/b"),
            (PathBuf::from("../two/c"), "two/c"),
        ] {
            let found = below(&roots, &path).expect("inside");
            assert_eq!(found, at(expect).canonicalize().expect("there"), "{}", path.display());
        }
        for path in ["one", "outside/d", "one/../outside/d", "one/link", "one-more/e", "one/none"] {
            assert!(below(&roots, &at(path)).is_err(), "{path}");
        }
        assert!(below(&roots, Path::new("../outside/d")).is_err());
        assert!(below(&roots, Path::new("/etc")).is_err());
        assert!(below(&[], &at("one/a")).is_err());
    }
}
