//! `kv`: a plugin's own store, shared by its versions and bounded by a quota. It lives in this
//! process's memory: a restart empties it. The lock is held for single map operations only.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::bindings::kv::Host;
use crate::bindings::types::Error;
use crate::config::ImportLimits;
use crate::guest::Guest;
use crate::imports::error;

/// What an entry costs beside key and value, in bytes.
const ENTRY_BYTES: usize = 64;

struct Entry {
    value: Vec<u8>,
    expires: Option<Instant>,
}

#[derive(Default)]
struct Entries {
    map: HashMap<String, Entry>,
    /// Sum of [`cost`] over the map.
    bytes: usize,
}

/// One plugin's store.
pub(crate) struct KvStore {
    limits: ImportLimits,
    entries: Mutex<Entries>,
}

fn cost(key: &str, value: &[u8]) -> usize {
    ENTRY_BYTES.saturating_add(key.len()).saturating_add(value.len())
}

/// When something set at `now` for `ttl_ms` ends. A time too far to be told does not end.
fn expiry(now: Instant, ttl_ms: Option<u64>) -> Option<Instant> {
    now.checked_add(Duration::from_millis(ttl_ms?))
}

impl Entries {
    /// The entry of `key`, unless it has expired.
    fn live(&mut self, key: &str, now: Instant) -> Option<&Entry> {
        let expired = |entry: &Entry| entry.expires.is_some_and(|expires| expires <= now);
        if self.map.get(key).is_some_and(expired) {
            self.remove(key);
        }
        self.map.get(key)
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.map.remove(key) {
            self.bytes -= cost(key, &entry.value);
        }
    }

    fn put(&mut self, key: String, entry: Entry, limits: &ImportLimits, now: Instant) -> bool {
        if !self.fits(&key, &entry, limits) {
            self.sweep(now);
            if !self.fits(&key, &entry, limits) {
                return false;
            }
        }
        self.remove(&key);
        self.bytes += cost(&key, &entry.value);
        self.map.insert(key, entry);
        true
    }

    fn fits(&self, key: &str, entry: &Entry, limits: &ImportLimits) -> bool {
        let old = self.map.get(key);
        let freed = old.map_or(0, |old| cost(key, &old.value));
        let bytes = (self.bytes - freed).saturating_add(cost(key, &entry.value));
        let entries = self.map.len() + usize::from(old.is_none());
        bytes <= limits.kv_bytes_max && entries <= limits.kv_entries_max
    }

    fn sweep(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.map.retain(|key, entry| {
            let live = entry.expires.is_none_or(|expires| expires > now);
            if !live {
                *bytes -= cost(key, &entry.value);
            }
            live
        });
    }
}

impl KvStore {
    pub(crate) fn new(limits: ImportLimits) -> Self {
        Self { limits, entries: Mutex::default() }
    }

    fn lock(&self, key: &str) -> Result<MutexGuard<'_, Entries>, Error> {
        let most = self.limits.kv_key_bytes_max;
        if key.len() > most {
            let message = format!("the key has {} bytes, more than {most}", key.len());
            return Err(error("invalid", message));
        }
        // A panic while it was held leaves a map that is still a map.
        Ok(self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn full(&self) -> Error {
        let ImportLimits { kv_bytes_max, kv_entries_max, .. } = self.limits;
        let message = format!("the store is full: {kv_entries_max} entries, {kv_bytes_max} bytes");
        error("over-budget", message)
    }

    fn get(&self, key: &str, now: Instant) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.lock(key)?.live(key, now).map(|entry| entry.value.clone()))
    }

    fn set(
        &self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
        now: Instant,
    ) -> Result<(), Error> {
        let entry = Entry { value, expires: expiry(now, ttl_ms) };
        let stored = self.lock(&key)?.put(key, entry, &self.limits, now);
        if stored { Ok(()) } else { Err(self.full()) }
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.lock(key)?.remove(key);
        Ok(())
    }

    /// Without `ttl_ms` the entry keeps the end it has.
    fn incr(&self, key: String, by: i64, ttl_ms: Option<u64>, now: Instant) -> Result<i64, Error> {
        let mut entries = self.lock(&key)?;
        let present = entries.live(&key, now);
        let number = match present {
            None => 0,
            Some(entry) => {
                let bytes = entry.value.as_slice().try_into();
                let bytes = bytes.map_err(|_| error("conflict", "the value is not a number"))?;
                i64::from_le_bytes(bytes)
            }
        };
        let sum = number.checked_add(by).ok_or_else(|| error("conflict", "the sum overflows"))?;
        let kept = present.and_then(|entry| entry.expires);
        let expires = if ttl_ms.is_some() { expiry(now, ttl_ms) } else { kept };
        let entry = Entry { value: sum.to_le_bytes().to_vec(), expires };
        if entries.put(key, entry, &self.limits, now) { Ok(sum) } else { Err(self.full()) }
    }

    /// The entry keeps the end it has.
    fn swap_if(
        &self,
        key: String,
        old: Option<&[u8]>,
        new: Vec<u8>,
        now: Instant,
    ) -> Result<bool, Error> {
        let mut entries = self.lock(&key)?;
        let present = entries.live(&key, now);
        if present.map(|entry| entry.value.as_slice()) != old {
            return Ok(false);
        }
        let expires = present.and_then(|entry| entry.expires);
        let entry = Entry { value: new, expires };
        if entries.put(key, entry, &self.limits, now) { Ok(true) } else { Err(self.full()) }
    }
}

impl Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, Error> {
        self.lent.kv.get(&key, Instant::now())
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), Error> {
        self.lent.kv.set(key, value, ttl_ms, Instant::now())
    }

    fn delete(&mut self, key: String) -> Result<(), Error> {
        self.lent.kv.delete(&key)
    }

    fn incr(&mut self, key: String, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        self.lent.kv.incr(key, by, ttl_ms, Instant::now())
    }

    fn swap_if(&mut self, key: String, old: Option<Vec<u8>>, new: Vec<u8>) -> Result<bool, Error> {
        self.lent.kv.swap_if(key, old.as_deref(), new, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(bytes: usize, entries: usize) -> KvStore {
        KvStore::new(ImportLimits {
            kv_bytes_max: bytes,
            kv_entries_max: entries,
            kv_key_bytes_max: 4,
            ..ImportLimits::default()
        })
    }

    fn code<T>(result: Result<T, Error>) -> Result<T, String> {
        result.map_err(|error| error.code)
    }

    #[test]
    fn values_end_at_their_time() {
        let (kv, start) = (store(1000, 10), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        code(kv.set("a".into(), vec![1], Some(10), at(0))).expect("room");
        assert_eq!(code(kv.get("a", at(9))), Ok(Some(vec![1])));
        assert_eq!(code(kv.get("a", at(10))), Ok(None));
        code(kv.set("a".into(), vec![1], Some(u64::MAX), at(0))).expect("room");
        assert_eq!(code(kv.get("a", at(1 << 40))), Ok(Some(vec![1])));
    }

    #[test]
    fn bytes_at_and_above_the_quota() {
        let (kv, now) = (store(2 * (ENTRY_BYTES + 1) + 10, 10), Instant::now());
        code(kv.set("a".into(), vec![0; 6], None, now)).expect("room");
        assert_eq!(code(kv.set("b".into(), vec![0; 5], None, now)), Err("over-budget".into()));
        assert_eq!(code(kv.set("b".into(), vec![0; 4], None, now)), Ok(()));
        // Replacing counts the difference.
        assert_eq!(code(kv.set("a".into(), vec![0; 7], None, now)), Err("over-budget".into()));
        assert_eq!(code(kv.set("a".into(), vec![1; 6], None, now)), Ok(()));
        code(kv.delete("b")).expect("short key");
        assert_eq!(code(kv.set("a".into(), vec![0; 7], None, now)), Ok(()));
    }

    #[test]
    fn entries_at_and_above_the_quota_and_expired_ones_make_room() {
        let (kv, now) = (store(10_000, 2), Instant::now());
        code(kv.set("a".into(), vec![], Some(5), now)).expect("room");
        code(kv.set("b".into(), vec![], None, now)).expect("room");
        assert_eq!(code(kv.set("c".into(), vec![], None, now)), Err("over-budget".into()));
        let later = now + Duration::from_millis(5);
        assert_eq!(code(kv.set("c".into(), vec![], None, later)), Ok(()));
        assert_eq!(code(kv.set("long!".into(), vec![], None, now)), Err("invalid".into()));
        assert_eq!(code(kv.set("four".into(), vec![], None, later)), Err("over-budget".into()));
    }

    #[test]
    fn numbers_add_up_and_refuse_what_is_none() {
        let (kv, now) = (store(1000, 10), Instant::now());
        assert_eq!(code(kv.incr("n".into(), 3, Some(10), now)), Ok(3));
        assert_eq!(code(kv.incr("n".into(), -5, None, now)), Ok(-2));
        let later = now + Duration::from_millis(10);
        assert_eq!(code(kv.incr("n".into(), 1, None, later)), Ok(1), "the end was kept");
        assert_eq!(code(kv.incr("n".into(), i64::MAX, None, later)), Err("conflict".into()));
        code(kv.set("t".into(), vec![1, 2], None, now)).expect("room");
        assert_eq!(code(kv.incr("t".into(), 1, None, now)), Err("conflict".into()));
    }

    #[test]
    fn swaps_only_what_is_there() {
        let (kv, now) = (store(1000, 10), Instant::now());
        assert_eq!(code(kv.swap_if("a".into(), Some(b"x"), b"y".to_vec(), now)), Ok(false));
        assert_eq!(code(kv.swap_if("a".into(), None, b"x".to_vec(), now)), Ok(true));
        assert_eq!(code(kv.swap_if("a".into(), None, b"z".to_vec(), now)), Ok(false));
        assert_eq!(code(kv.swap_if("a".into(), Some(b"x"), b"y".to_vec(), now)), Ok(true));
        assert_eq!(code(kv.get("a", now)), Ok(Some(b"y".to_vec())));
    }
}
