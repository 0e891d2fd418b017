//! Fetched adapters on this machine's disk: directories named by their content, under a budget of
//! bytes. What somebody holds stays; of the rest, what was used longest ago makes room. A directory
//! appears whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::SourceError;

/// Where directories are while they are not whole.
const INCOMING: &str = "incoming";
/// Hexadecimal digits of a directory's name.
const NAME_DIGITS: usize = 64;

#[derive(Debug)]
struct Entry {
    bytes: u64,
    holds: usize,
    /// When it was last held, counted in holds of any.
    used: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of entries and of reservations.
    bytes: u64,
    clock: u64,
    entries: HashMap<String, Entry>,
}

/// The directories.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

/// A fetched adapter. Its files stay as long as this lives.
#[derive(Debug)]
pub struct Fetched {
    cache: Arc<Cache>,
    name: String,
    dir: PathBuf,
}

impl Fetched {
    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        let entry = state.entries.get_mut(&self.name);
        entry.expect("what is held is not evicted").holds -= 1;
    }
}

/// Bytes of the budget, given back when this is dropped, and a directory to fill, likewise.
pub(crate) struct Incoming {
    cache: Arc<Cache>,
    bytes: u64,
    dir: TempDir,
}

impl Cache {
    /// Takes in what an earlier process left whole, and removes the rest.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> Result<Arc<Self>, SourceError> {
        let incoming = dir.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(&incoming).map_err(SourceError::cache("remove", &incoming))?;
        }
        fs::create_dir_all(&incoming).map_err(SourceError::cache("create", &incoming))?;
        let mut found = Vec::new();
        for listed in fs::read_dir(dir).map_err(SourceError::cache("list", dir))? {
            let path = listed.map_err(SourceError::cache("list", dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_name(name) {
                let look = || -> std::io::Result<_> {
                    Ok((fs::metadata(&path)?.modified()?, bytes_of(&path)?))
                };
                let (modified, bytes) = look().map_err(SourceError::cache("look at", &path))?;
                found.push((modified, name.to_owned(), bytes));
            }
        }
        found.sort();
        let mut state = State::default();
        for (_, name, bytes) in found {
            state.clock += 1;
            state.bytes += bytes;
            state.entries.insert(name, Entry { bytes, holds: 0, used: state.clock });
        }
        let cache = Self { dir: dir.to_owned(), bytes_max, state: Mutex::new(state) };
        let cache = Arc::new(cache);
        cache.make_room(&mut cache.lock(), 0)?;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what has that name, if it is there.
    pub(crate) fn hold(self: &Arc<Self>, name: &str) -> Option<Fetched> {
        self.hold_in(&mut self.lock(), name)
    }

    /// Bytes of entries and of reservations.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whether that name is there now.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().entries.contains_key(name)
    }

    fn hold_in(self: &Arc<Self>, state: &mut State, name: &str) -> Option<Fetched> {
        state.clock += 1;
        let clock = state.clock;
        let entry = state.entries.get_mut(name)?;
        entry.holds += 1;
        entry.used = clock;
        let (cache, dir) = (Arc::clone(self), self.dir.join(name));
        Some(Fetched { cache, name: name.to_owned(), dir })
    }

    /// Reserves `bytes` and gives a directory for them; what is not held makes room.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        location: &str,
        bytes: u64,
    ) -> Result<Incoming, SourceError> {
        let incoming = self.dir.join(INCOMING);
        let mut state = self.lock();
        if !self.make_room(&mut state, bytes)? {
            let (held, bytes_max) = (state.bytes, self.bytes_max);
            let location = location.to_owned();
            return Err(SourceError::CacheFull { location, bytes, held, bytes_max });
        }
        let dir =
            tempfile::tempdir_in(&incoming).map_err(SourceError::cache("create", &incoming))?;
        state.bytes += bytes;
        Ok(Incoming { cache: Arc::clone(self), bytes, dir })
    }

    /// Whether `bytes` fit now. Removes no more than it must, and nothing if that is not enough.
    fn make_room(&self, state: &mut State, bytes: u64) -> Result<bool, SourceError> {
        let idle = state.entries.values().filter(|entry| entry.holds == 0);
        let idle: u64 = idle.map(|entry| entry.bytes).sum();
        if (state.bytes - idle).saturating_add(bytes) > self.bytes_max {
            return Ok(false);
        }
        while state.bytes.saturating_add(bytes) > self.bytes_max {
            let idle = state.entries.iter().filter(|(_, entry)| entry.holds == 0);
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            self.evict(state, &oldest.expect("enough of them are idle"))?;
        }
        Ok(true)
    }

    /// Removes what nobody holds.
    fn evict(&self, state: &mut State, name: &str) -> Result<(), SourceError> {
        let path = self.dir.join(name);
        // Out of sight at once: a process that dies here leaves nothing that looks whole.
        let gone = self.dir.join(INCOMING).join(name);
        fs::rename(&path, &gone).map_err(SourceError::cache("remove", &path))?;
        let entry = state.entries.remove(name).expect("only what is there is evicted");
        state.bytes -= entry.bytes;
        fs::remove_dir_all(&gone).map_err(SourceError::cache("remove", &gone))
    }
}

impl Incoming {
    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes it visible under the name of its content, and holds it. If somebody holds that already, this
    /// is removed; else what is there, of which an earlier process alone knew that it is what its
    /// name says.
    pub(crate) fn keep(self, name: &str) -> Result<Fetched, SourceError> {
        debug_assert!(is_name(name));
        let (cache, path) = (Arc::clone(&self.cache), self.cache.dir.join(name));
        let sync = |path: &Path| {
            let done = File::open(path).and_then(|dir| dir.sync_all());
            done.map_err(SourceError::cache("write", path))
        };
        sync(self.path())?;
        let bytes = bytes_of(self.path()).map_err(SourceError::cache("look at", self.path()))?;
        let mut state = cache.lock();
        if state.entries.get(name).is_some_and(|entry| entry.holds == 0) {
            cache.evict(&mut state, name)?;
        }
        if !state.entries.contains_key(name) {
            fs::rename(self.path(), &path).map_err(SourceError::cache("write", &path))?;
            sync(&cache.dir)?;
            state.bytes += bytes;
            state.entries.insert(name.to_owned(), Entry { bytes, holds: 0, used: 0 });
        }
        let fetched = cache.hold_in(&mut state, name);
        Ok(fetched.expect("it was there or was just put there, under the same lock"))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.cache.lock().bytes -= self.bytes;
    }
}

fn is_name(name: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.len() == NAME_DIGITS && name.bytes().all(hex)
}

fn bytes_of(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(letter: char) -> String {
        String::from(letter).repeat(NAME_DIGITS)
    }

    fn put(cache: &Arc<Cache>, letter: char, bytes: u64) -> Result<Fetched, SourceError> {
        let incoming = cache.reserve("s3://b/a", bytes)?;
        fs::write(incoming.path().join("f"), vec![0; bytes as usize]).expect("written");
        incoming.keep(&name(letter))
    }

    #[test]
    fn what_is_held_stays_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("folder");
        let cache = Cache::open(dir.path(), 30).expect("opened");
        let there = |letter| dir.path().join(name(letter)).is_dir();
        let a = put(&cache, 'a', 10).expect("room");
        drop(put(&cache, 'b', 10).expect("room"));
        drop(put(&cache, 'c', 10).expect("room"));
        assert!(there('a') && there('b') && there('c'));
        // Used again, so that c is the oldest of those that nobody holds.
        drop(cache.hold(&name('b')).expect("there"));
        let d = put(&cache, 'd', 10).expect("room");
        assert!(there('a') && there('b') && !there('c') && there('d'));
        assert!(cache.hold(&name('c')).is_none());
        // Nothing goes for what can't fit anyway.
        let error = put(&cache, 'e', 11).expect_err("a and d are held").to_string();
        let expect = "s3://b/a needs 11 bytes of the cache, of which 30 of 30 are in use";
        assert_eq!(error, expect);
        assert!(there('b'));
        drop((a, d));
        drop(put(&cache, 'e', 30).expect("room"));
        assert!(there('e') && !there('a') && !there('b') && !there('d'));
        assert!(matches!(cache.reserve("x", 31), Err(SourceError::CacheFull { .. })));
        assert_eq!(cache.lock().bytes, 30);
    }

    #[test]
    fn one_content_is_there_once_and_torn_directories_never() {
        let dir = tempfile::tempdir().expect("folder");
        let cache = Cache::open(dir.path(), 100).expect("opened");
        let (one, other) =
            (put(&cache, 'a', 10).expect("room"), put(&cache, 'a', 10).expect("room"));
        assert_eq!((one.dir(), cache.lock().bytes), (other.dir(), 10));
        let torn = cache.reserve("x", 20).expect("room");
        fs::write(torn.path().join("f"), "half").expect("written");
        assert_eq!(cache.lock().bytes, 30);
        let at = torn.path().to_owned();
        drop(torn);
        assert!(!at.exists() && cache.lock().bytes == 10);
        // Damaged meanwhile: who fetches it anew gets what was fetched.
        std::fs::write(one.dir().join("f"), "other").expect("written");
        drop((one, other));
        let anew = put(&cache, 'a', 10).expect("room");
        assert_eq!(std::fs::read(anew.dir().join("f")).expect("there"), [0; 10]);
        drop(anew);
        // As a process that died would leave it.
        fs::create_dir(dir.path().join(INCOMING).join("x")).expect("made");
        fs::create_dir(dir.path().join("no-name")).expect("made");
        let again = Cache::open(dir.path(), 100).expect("opened");
        assert_eq!(again.lock().bytes, 10);
        assert!(again.hold(&name('a')).is_some() && again.hold(&name('b')).is_none());
        assert_eq!(fs::read_dir(dir.path().join(INCOMING)).expect("there").count(), 0);
        // A smaller budget is kept from the start.
        let small = Cache::open(dir.path(), 9).expect("opened");
        assert!(small.hold(&name('a')).is_none() && !dir.path().join(name('a')).exists());
    }
}
