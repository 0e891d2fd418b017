//! A directory whose sub-directories are adapters: all of them are found at the start without
//! reading weights, new ones by a scan or by the first request for their name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Origin, Registry, Version};
use crate::LoraError;
use crate::config::CONFIG_FILE;
use crate::index::Stamp;

/// Most threads that index at once; each waits for the disk more than it computes.
const SCAN_THREADS_MAX: usize = 8;

/// Where a registry looks for adapters.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The directory. The name of a sub-directory with an `adapter_config.json` is an alias.
    pub dir: PathBuf,
    /// Whether an alias may be called so.
    pub accepts: fn(&str) -> bool,
}

/// What a scan changed.
#[derive(Debug, Default)]
pub struct Scan {
    /// Aliases that are new.
    pub added: usize,
    /// Aliases whose files were written since they were found.
    pub changed: usize,
    /// Aliases whose directory is gone.
    pub removed: usize,
    /// Directories that could not be used; an alias that was found there before stays as it was.
    pub refused: Vec<(PathBuf, LoraError)>,
}

/// What became of one directory.
enum Found {
    New(Arc<Version>),
    Changed(Arc<Version>),
    Same,
}

impl Registry {
    /// Looks for adapters in `folder` from now on, and scans it.
    ///
    /// # Errors
    /// The directory can't be listed.
    ///
    /// # Panics
    /// If the registry has a folder already.
    pub fn watch(&self, folder: Folder) -> Result<Scan, LoraError> {
        assert!(self.folder.set(folder).is_ok(), "one folder per registry");
        self.scan()
    }

    /// Registers what is new in the folder, registers again what was written since, and takes away
    /// what is gone. Aliases that somebody named are left alone. Reads files: not for an async thread.
    ///
    /// # Errors
    /// The directory can't be listed.
    pub fn scan(&self) -> Result<Scan, LoraError> {
        let Some(folder) = self.folder.get() else { return Ok(Scan::default()) };
        let failed = |source| LoraError::List { path: folder.dir.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder.dir).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_unstable();
        self.shared.lock().hidden.clear();
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.dir.join(name)).collect();
        let paths = paths.into_iter().filter(|path| path.join(CONFIG_FILE).is_file());
        let paths: Vec<PathBuf> = paths.collect();
        let mut scan = Scan::default();
        for (path, found) in self.look_at_all(folder, &paths) {
            let named = found.and_then(|found| {
                let counter = match &found {
                    Found::New(_) => &mut scan.added,
                    Found::Changed(_) => &mut scan.changed,
                    Found::Same => return Ok(()),
                };
                if let Found::New(version) | Found::Changed(version) = found {
                    self.name(&version)?;
                    *counter += 1;
                }
                Ok(())
            });
            if let Err(error) = named {
                scan.refused.push((path, error));
            }
        }
        scan.removed = self.remove_missing(folder);
        Ok(scan)
    }

    /// Looks for what `alias` may mean that is not known yet: a directory that came into the folder, or
    /// a blend. True if it names something afterwards. Reads files: not for an async thread.
    ///
    /// # Errors
    /// It is there and can't be used.
    pub fn discover(&self, alias: &str) -> Result<bool, LoraError> {
        Ok(self.discover_in_folder(alias)? || self.discover_blend(alias)?)
    }

    pub(super) fn discover_in_folder(&self, alias: &str) -> Result<bool, LoraError> {
        let Some(folder) = self.folder.get() else { return Ok(false) };
        // One component, which is no way out of the folder.
        let plain = !matches!(alias, "" | "." | "..") && !alias.contains(['/', '\\', '\0']);
        let hidden = self.shared.lock().hidden.contains(alias);
        if !plain || hidden || !(folder.accepts)(alias) {
            return Ok(false);
        }
        let path = folder.dir.join(alias);
        if !path.join(CONFIG_FILE).is_file() {
            return Ok(false);
        }
        if let Found::New(version) | Found::Changed(version) = self.look_at(folder, &path)? {
            self.name(&version)?;
        }
        Ok(true)
    }

    /// What each directory is, in order; several threads look.
    fn look_at_all(
        &self,
        folder: &Folder,
        paths: &[PathBuf],
    ) -> Vec<(PathBuf, Result<Found, LoraError>)> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(SCAN_THREADS_MAX).min(paths.len());
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = self.look_at(folder, path);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((path.clone(), found));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by(|one, other| one.0.cmp(&other.0));
        results
    }

    fn look_at(&self, folder: &Folder, path: &Path) -> Result<Found, LoraError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| (folder.accepts)(name)).ok_or_else(|| {
            let alias = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            LoraError::Alias { alias, bytes_max: super::ALIAS_BYTES_MAX }
        })?;
        let known = self.shared.lock().aliases.get(name).cloned();
        match known {
            Some(known) if known.origin == Origin::Named => Ok(Found::Same),
            Some(known) if known.indexed.stamp == Stamp::of(path)? => Ok(Found::Same),
            Some(_) => self.index(name, path, Origin::Found).map(Found::Changed),
            None => self.index(name, path, Origin::Found).map(Found::New),
        }
    }

    /// Takes away the aliases whose directory is no adapter any more.
    fn remove_missing(&self, folder: &Folder) -> usize {
        let found: Vec<Arc<Version>> = {
            let state = self.shared.lock();
            let found = state.aliases.values().filter(|version| version.origin == Origin::Found);
            found.cloned().collect()
        };
        let gone =
            |version: &Arc<Version>| !folder.dir.join(&version.alias).join(CONFIG_FILE).is_file();
        let gone: Vec<Arc<Version>> = found.into_iter().filter(gone).collect();
        self.shared.change(|state, _| {
            let same = |version: &Arc<Version>| {
                state.aliases.get(&version.alias).is_some_and(|named| named.id == version.id)
            };
            let gone: Vec<Arc<Version>> = gone.into_iter().filter(same).collect();
            gone.iter().for_each(|version| drop(state.remove(&version.alias)));
            gone.len()
        })
    }
}
