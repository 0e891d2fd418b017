//! Cuts the power at every byte and every sync, and compares what is left with what was promised.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::record::{AttributionRecord, PluginRecord, ShareRecord, UsageRecord};
use crate::recover::scan;

pub(crate) fn entry(id: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        unix_ms: 1_700_000_000_000,
        tenant: "default".to_owned(),
        status: "completed".to_owned(),
        model: "npc".to_owned(),
        request_digest: Digest([1; 32]),
        output_digest: Digest([2; 32]),
        base_digest: Digest([3; 32]),
        tokenizer_digest: Digest([4; 32]),
        adapter: None,
        plugins: vec![PluginRecord {
            kind: "scorer".to_owned(),
            name: "span-rarity".to_owned(),
            version: "0.1.0".to_owned(),
            digest: Digest([5; 32]),
            fault: None,
            bypassed: false,
        }],
        corpus_digest: Some(Digest([6; 32])),
        attribution: AttributionRecord {
            method: "spans@1".to_owned(),
            status: "scored".to_owned(),
            spans: 1,
            shares: vec![ShareRecord {
                contributor: "Ada".to_owned(),
                parts_per_billion: 1_000_000_000,
            }],
            note: None,
        },
        usage: UsageRecord { prompt_tokens: 3, completion_tokens: 5, cached_tokens: 0 },
        finish_reason: "stop".to_owned(),
        seed: 7,
    }
}

/// Memory that keeps what was synced apart from what was only written. Clones share it.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Clone, Default)]
struct Platters {
    durable: BTreeMap<String, Vec<u8>>,
    written: BTreeMap<String, Vec<u8>>,
    /// Calls of `append` and `sync` until one fails; `None` never.
    calls_left: Option<u32>,
}

impl Disk {
    fn call(&self) -> io::Result<std::sync::MutexGuard<'_, Platters>> {
        let mut platters = self.0.lock().expect("no panic while held");
        match &mut platters.calls_left {
            Some(0) => return Err(io::Error::other("power cut")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platters)
    }

    /// The disk after a power cut that kept `kept` bytes of what was not synced.
    fn after_cut(&self, kept: usize) -> Self {
        let platters = self.0.lock().expect("no panic while held");
        let mut durable = platters.durable.clone();
        let mut left = kept;
        for (name, bytes) in &platters.written {
            let synced = durable.get(name).map_or(0, Vec::len);
            let take = left.min(bytes.len() - synced);
            left -= take;
            if synced + take > 0 {
                durable.insert(name.clone(), bytes[..synced + take].to_vec());
            }
        }
        let written = durable.clone();
        Self(Arc::new(Mutex::new(Platters { durable, written, calls_left: None })))
    }

    fn unsynced(&self) -> usize {
        let platters = self.0.lock().expect("no panic while held");
        let total = |files: &BTreeMap<String, Vec<u8>>| files.values().map(Vec::len).sum::<usize>();
        total(&platters.written) - total(&platters.durable)
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("no panic while held").written.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().expect("no panic while held").written[name].clone())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.call()?.written.entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut platters = self.call()?;
        let bytes = platters.written.get(name).cloned().unwrap_or_default();
        platters.durable.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut platters = self.0.lock().expect("no panic while held");
        if length == 0 {
            platters.written.remove(name);
            platters.durable.remove(name);
        } else {
            let length = usize::try_from(length).expect("small");
            platters.written.get_mut(name).expect("there").truncate(length);
            let bytes = platters.written[name].clone();
            platters.durable.insert(name.to_owned(), bytes);
        }
        Ok(())
    }
}

fn writer(disk: &Disk, segment_bytes_max: u64) -> Writer {
    let mut storage = disk.clone();
    let (state, _) = recover(&mut storage).expect("recovers");
    Writer::new(
        Box::new(storage),
        state,
        LedgerConfig { segment_bytes_max, ..LedgerConfig::default() },
    )
}

/// Writes groups of one to three entries; returns the ids that were acknowledged.
fn write_groups(writer: &mut Writer, groups: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for group in 0..groups {
        let ids = (0..=group % 3).map(|n| format!("id-{group}-{n}"));
        let results = writer.write_group(ids.map(|id| entry(&id)).collect());
        acknowledged
            .extend(results.into_iter().filter_map(|(result, _)| Some(result.ok()?.entry.id)));
    }
    acknowledged
}

fn assert_holds(disk: &Disk, acknowledged: &[String]) {
    let mut storage = disk.clone();
    let (state, _) = recover(&mut storage).expect("a torn end is not damage");
    for id in acknowledged {
        assert!(state.places.contains_key(id), "{id} was acknowledged and is gone");
    }
    let (again, damage) = scan(&storage).expect("reads");
    assert!(damage.is_none());
    assert_eq!((again.next_index, again.head), (state.next_index, state.head));
    let mut writer = writer(disk, 1 << 20);
    let results = writer.write_group(vec![entry("after")]);
    assert!(results[0].0.is_ok(), "the log goes on");
}

#[test]
fn a_cut_at_any_call_and_any_byte_loses_nothing_acknowledged() {
    // A small segment makes the cuts fall on rotations too.
    for calls in 0..24 {
        let disk = Disk::default();
        let mut writer = writer(&disk, 1500);
        disk.0.lock().expect("no panic while held").calls_left = Some(calls);
        let acknowledged = write_groups(&mut writer, 8);
        for kept in 0..=disk.unsynced() {
            assert_holds(&disk.after_cut(kept), &acknowledged);
        }
    }
}

#[test]
fn a_failed_write_poisons_the_writer() {
    let disk = Disk::default();
    let mut writer = writer(&disk, 1 << 20);
    assert!(writer.write_group(vec![entry("a")])[0].0.is_ok());
    disk.0.lock().expect("no panic while held").calls_left = Some(1);
    let failed = writer.write_group(vec![entry("b"), entry("c")]);
    assert!(failed.iter().all(|(result, place)| result.is_err() && place.is_none()));
    disk.0.lock().expect("no panic while held").calls_left = None;
    let later = &writer.write_group(vec![entry("d")])[0].0;
    assert!(matches!(later, Err(LedgerError::Poisoned { .. })), "{later:?}");
}

/// A sync that fails once is enough: later calls may succeed without what was lost.
#[test]
fn a_failed_sync_is_seen_by_whoever_asks() {
    let disk = Disk::default();
    let writer = writer(&disk, 1 << 20);
    let index = Index {
        places: RwLock::default(),
        head: RwLock::new((0, Digest::ZERO)),
        poisoned: AtomicBool::new(false),
    };
    // The header and its sync, one record; the record's sync fails.
    disk.0.lock().expect("no panic while held").calls_left = Some(3);
    let (jobs, receiver) = sync_channel(2);
    let (told, outcomes) = sync_channel(2);
    for id in ["a", "b"] {
        let (told, disk) = (told.clone(), disk.clone());
        let done: Done = Box::new(move |result: Result<Receipt, LedgerError>| {
            disk.0.lock().expect("no panic while held").calls_left = None;
            told.send(result.is_ok()).expect("the test waits");
        });
        jobs.send(Job { entry: entry(id), done }).expect("there is room");
    }
    drop(jobs);
    run(writer, &receiver, &index, 1);
    assert_eq!(outcomes.try_iter().collect::<Vec<_>>(), [false, false]);
    assert!(index.poisoned.load(Ordering::Acquire));
    assert!(index.places.read().expect("no panic while held").is_empty(), "nothing was published");
}

#[test]
fn any_flipped_byte_before_the_last_group_is_found() {
    let disk = Disk::default();
    // Groups of one, two and three records: the last cannot be told from a torn write.
    write_groups(&mut writer(&disk, 1 << 20), 3);
    let (name, bytes) = {
        let platters = disk.0.lock().expect("no panic while held");
        let (name, bytes) = platters.durable.first_key_value().expect("one segment");
        (name.clone(), bytes.clone())
    };
    let state = scan(&disk).expect("reads").0;
    let last = state.places["id-2-0"].offset;
    for at in 0..usize::try_from(last).expect("small") {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let copy = disk.after_cut(0);
        copy.0.lock().expect("no panic while held").written.insert(name.clone(), damaged);
        let recovered = recover(&mut copy.clone());
        assert!(recovered.is_err(), "a flip at byte {at} was not found");
    }
}

/// A disk may write the parts of one group in any order: a hole in front of intact records of the same,
/// unacknowledged group is the end of a torn write.
#[test]
fn a_group_whose_parts_came_out_of_order_is_cut() {
    let disk = Disk::default();
    let acknowledged = write_groups(&mut writer(&disk, 1 << 20), 2);
    let (name, before) = {
        let platters = disk.0.lock().expect("no panic while held");
        let (name, bytes) = platters.durable.first_key_value().expect("one segment");
        (name.clone(), bytes.clone())
    };
    let mut after = writer(&disk, 1 << 20);
    let ids = ["a", "b", "c"].map(entry).to_vec();
    assert!(after.write_group(ids).iter().all(|(result, _)| result.is_ok()));
    let bytes = disk.0.lock().expect("no panic while held").durable[&name].clone();
    for hole in [before.len()..before.len() + 16, before.len() + 20..before.len() + 300] {
        let mut torn = bytes.clone();
        torn[hole].fill(0);
        let copy = disk.after_cut(0);
        copy.0.lock().expect("no panic while held").written.insert(name.clone(), torn);
        let (state, recovery) = recover(&mut copy.clone()).expect("torn, not damaged");
        assert_eq!(recovery.truncated_bytes as usize, bytes.len() - before.len());
        assert!(acknowledged.iter().all(|id| state.places.contains_key(id)));
        assert!(!state.places.contains_key("c"));
    }
}

#[test]
fn rules_of_an_entry_are_checked() {
    let disk = Disk::default();
    let mut writer = writer(&disk, 1 << 20);
    let mut check = |change: &dyn Fn(&mut Entry), refused: Option<&str>| {
        let mut entry = entry("same");
        change(&mut entry);
        let result = writer.write_group(vec![entry]).remove(0).0;
        match (result, refused) {
            (Ok(_), None) => {}
            (Err(LedgerError::Refused { reason }), Some(part)) => {
                assert!(reason.contains(part), "{reason}");
            }
            (other, _) => panic!("{other:?}, expected {refused:?}"),
        }
    };
    check(&|_| (), None);
    check(&|_| (), Some("stands in the log already"));
    check(&|entry| entry.id.clear(), Some("id of 0 bytes"));
    check(&|entry| entry.id = "x".repeat(128), None);
    check(&|entry| entry.id = "x".repeat(129), Some("id of 129 bytes"));
    let one_short = |entry: &mut Entry| {
        entry.id = "short".to_owned();
        entry.attribution.shares[0].parts_per_billion -= 1;
    };
    check(&one_short, Some("shares sum to 999999999"));
    let huge = |entry: &mut Entry| {
        entry.id = "huge".to_owned();
        entry.model = "m".repeat(PAYLOAD_BYTES_MAX);
    };
    check(&huge, Some("more than 1048576"));
}
