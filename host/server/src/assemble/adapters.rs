//! Adapters with their corpora: one load for both, at the start and by the admin API.
//!
//! Changes come one at a time; requests never wait for them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use lora::{AdapterInfo, LoraError, ModelShape, Registry, RegistryConfig};
use pipeline::{CorpusLoadError, CorpusStore, load_corpus};
use serde::Serialize;
use tokenization::Tokenizer;

use crate::assemble::{folders_with, is_free_name};
use crate::config::{Config, Limits};

/// The training corpus beside an adapter's weights.
const CORPUS_FILE: &str = "corpus.jsonl";
/// What makes a folder an adapter.
const ADAPTER_FILE: &str = "adapter_config.json";

/// What adapters are loaded with.
pub(crate) struct AdapterParts {
    pub(crate) shape: ModelShape,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) corpora: Arc<CorpusStore>,
    /// Where indexed corpora are kept.
    pub(crate) corpus_dir: PathBuf,
    /// A name that no adapter may have.
    pub(crate) base_name: String,
    pub(crate) limits: Limits,
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
    /// Its files, its name or the room for it.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// Its corpus.
    #[error(transparent)]
    Corpus(#[from] CorpusLoadError),
}

/// An adapter as operators see it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct AdapterView {
    /// Its name in requests.
    pub(crate) name: String,
    /// Hash of its configuration and weights, in hex.
    pub(crate) generation: String,
    /// Largest rank of any module.
    pub(crate) rank_max: usize,
    /// Bytes of weights.
    pub(crate) bytes: u64,
    /// Last names of the modules it changes.
    pub(crate) targets: Vec<String>,
    /// Directory it was loaded from.
    pub(crate) path: PathBuf,
    /// Its training corpus, if there is one beside it.
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

/// The adapters of a server.
pub(crate) struct Adapters {
    parts: AdapterParts,
    registry: Arc<Registry>,
    /// Held through a change, so that an alias and its corpus change together.
    changes: Mutex<()>,
}

impl Adapters {
    /// No adapters yet.
    pub(crate) fn new(parts: AdapterParts) -> Self {
        let registry = Arc::new(Registry::new(RegistryConfig {
            resident_bytes_max: parts.limits.adapter_bytes_max,
            adapters_max: parts.limits.adapters_max,
        }));
        Self { parts, registry, changes: Mutex::default() }
    }

    /// Aliases and their generations.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Loads every adapter that the configuration names.
    pub(crate) fn load_all(&self, config: &Config) -> Result<()> {
        if let Some(dir) = &config.adapter_dir {
            for path in folders_with(dir, ADAPTER_FILE)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let Some(name) = name else {
                    bail!("the name of the adapter {} is not UTF-8", path.display());
                };
                if config.adapters.iter().all(|named| named.name != name) {
                    self.load_one(name, &path)?;
                }
            }
        }
        for named in &config.adapters {
            self.load_one(&named.name, &named.path)?;
        }
        Ok(())
    }

    fn load_one(&self, name: &str, path: &Path) -> Result<()> {
        let loaded = self.load(name, path);
        let named = || format!("load the adapter {name} from {}", path.display());
        loaded.with_context(named).map(|_| ())
    }

    /// Loads the directory at `path` as `name`, its corpus first. If the name was taken, requests
    /// that come later get the new generation.
    pub(crate) fn load(&self, name: &str, path: &Path) -> Result<AdapterView, AdapterError> {
        let parts = &self.parts;
        if !is_free_name(name) || name == parts.base_name {
            return Err(AdapterError::NameTaken { name: name.chars().take(80).collect() });
        }
        let started = std::time::Instant::now();
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let jsonl = path.join(CORPUS_FILE);
        // A name that leads nowhere is a mistake to be told, not an adapter without a corpus.
        let corpus = match jsonl.symlink_metadata().is_ok() {
            true => Some(load_corpus(&jsonl, &parts.corpus_dir, &parts.tokenizer)?),
            false => None,
        };
        let info = self.registry.load(name, path, &parts.shape)?;
        match corpus {
            Some(segment) => parts.corpora.set(name, info.generation, segment),
            None => parts.corpora.remove(name),
        }
        let view = self.view(info);
        let (generation, ms) = (&view.generation[..12], started.elapsed().as_millis());
        let corpus_tokens = view.corpus.as_ref().map_or(0, |corpus| corpus.tokens);
        tracing::info!(adapter = name, generation, corpus_tokens, ms, "adapter loaded");
        Ok(view)
    }

    /// Takes the name away. Running requests keep what they have.
    pub(crate) fn unload(&self, name: &str) -> Result<AdapterView, AdapterError> {
        let _change = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view(self.registry.unload(name)?);
        self.parts.corpora.remove(name);
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
            name: info.alias,
            generation: info.generation.to_string(),
            rank_max: info.rank_max,
            bytes: info.bytes,
            targets: info.targets,
            path: info.path,
            corpus,
        }
    }
}
