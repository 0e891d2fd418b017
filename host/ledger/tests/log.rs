//! The log on a real disk: acknowledgement, reading back, verification, and bytes kept for ever.

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use ledger::{
    AttributionRecord, Digest, Entry, Ledger, LedgerConfig, LedgerError, Receipt, UsageRecord,
    verify_dir, verify_receipt_json,
};

fn entry(id: &str) -> Entry {
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
        plugins: Vec::new(),
        corpus_digest: None,
        attribution: AttributionRecord {
            method: "spans@1".to_owned(),
            status: "none".to_owned(),
            spans: 0,
            shares: Vec::new(),
            note: None,
        },
        usage: UsageRecord { prompt_tokens: 3, completion_tokens: 5, cached_tokens: 0 },
        finish_reason: "stop".to_owned(),
        seed: 7,
    }
}

fn append(ledger: &Ledger, id: &str) -> Result<Receipt, LedgerError> {
    let (sender, receiver) = mpsc::channel();
    ledger.append(entry(id), move |result| sender.send(result).expect("waiting"))?;
    receiver.recv().expect("always acknowledged")
}

fn write(dir: &Path, ids: std::ops::Range<u32>, config: &LedgerConfig) -> Vec<Receipt> {
    let (ledger, _) = Ledger::open(dir, config).expect("opens");
    ids.map(|id| append(&ledger, &format!("id-{id}")).expect("written")).collect()
}

#[test]
fn receipts_come_back_after_reopening_and_verify() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = LedgerConfig { segment_bytes_max: 2000, ..LedgerConfig::default() };
    let mut written = write(dir.path(), 0..7, &config);
    written.extend(write(dir.path(), 7..12, &config));
    let (ledger, recovery) = Ledger::open(dir.path(), &config).expect("opens");
    assert_eq!((recovery.entries, recovery.truncated_bytes), (12, 0));
    for receipt in &written {
        let found = ledger.get(&receipt.entry.id).expect("reads").expect("is there");
        assert_eq!(found, *receipt);
        let json = serde_json::to_string(&found).expect("serialises");
        assert_eq!(verify_receipt_json(&json).expect("verifies"), *receipt);
        assert!(
            verify_receipt_json(&json.replace("\"tenant\":\"default\"", "\"tenant\":\"x\""))
                .is_err()
        );
    }
    assert_eq!(ledger.get("id-99").expect("reads"), None);
    let report = verify_dir(dir.path()).expect("verifies");
    assert_eq!((report.entries, report.head), (12, written[11].hash));
    assert!(report.segments > 1, "the limit makes several segments");
}

#[test]
fn many_threads_share_syncs_and_all_are_acknowledged() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (ledger, _) = Ledger::open(dir.path(), &LedgerConfig::default()).expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..16 {
                    append(ledger, &format!("{thread}-{n}")).expect("written");
                }
            });
        }
    });
    ledger.close();
    assert_eq!(verify_dir(dir.path()).expect("verifies").entries, 128);
    assert!(matches!(append(&ledger, "late"), Err(LedgerError::Closed)));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let first = Ledger::open(dir.path(), &LedgerConfig::default()).expect("opens");
    let second = Ledger::open(dir.path(), &LedgerConfig::default());
    assert!(matches!(second, Err(LedgerError::Locked { .. })), "{second:?}");
    drop(first);
    Ledger::open(dir.path(), &LedgerConfig::default()).expect("opens once it is free");
}

#[test]
fn a_removed_segment_is_found() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = LedgerConfig { segment_bytes_max: 1000, ..LedgerConfig::default() };
    write(dir.path(), 0..6, &config);
    let mut segments: Vec<_> = fs::read_dir(dir.path())
        .expect("lists")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    fs::remove_file(&segments[1]).expect("removed");
    let error = verify_dir(dir.path()).expect_err("a gap").to_string();
    assert!(error.contains("does not continue the one before it"), "{error}");
}

/// The bytes of version 1, kept for ever. If this fails, the format has changed: give it a new
/// magic, and keep reading this file.
#[test]
fn version_1_is_written_and_read_as_it_ever_was() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger-v1.log");
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), 0..3, &LedgerConfig::default());
    let written = fs::read(dir.path().join("receipts-0000000000000000.log")).expect("written");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&fixture, &written).expect("fixture");
    }
    assert!(written == fs::read(&fixture).expect("fixture"), "the bytes differ");
    let old = tempfile::tempdir().expect("temporary folder");
    fs::copy(&fixture, old.path().join("receipts-0000000000000000.log")).expect("copied");
    assert_eq!(verify_dir(old.path()).expect("verifies").entries, 3);
}

/// A record whose checksum is right was written whole: if its hash does not follow, it was forged, and
/// must not be taken for the torn end of a write.
#[test]
fn a_forged_last_record_is_reported_and_not_cut() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let other = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), 0..3, &LedgerConfig::default());
    write(other.path(), 7..8, &LedgerConfig::default());
    let name = "receipts-0000000000000000.log";
    let mut bytes = fs::read(dir.path().join(name)).expect("read");
    let kept = bytes.len();
    // A record of another log, intact, in the place of the last.
    bytes.extend_from_slice(&fs::read(other.path().join(name)).expect("read")[52..]);
    fs::write(dir.path().join(name), &bytes).expect("written");
    for error in [
        verify_dir(dir.path()).expect_err("a forgery").to_string(),
        Ledger::open(dir.path(), &LedgerConfig::default()).expect_err("a forgery").to_string(),
    ] {
        assert!(error.contains("does not follow") && error.contains(&kept.to_string()), "{error}");
    }
    assert_eq!(fs::read(dir.path().join(name)).expect("read"), bytes, "nothing was cut");
}

/// Cutting the log anywhere leaves the records before the cut, and only whole ones.
#[test]
fn a_log_cut_at_any_byte_opens_with_what_is_whole() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), 0..3, &LedgerConfig::default());
    let name = "receipts-0000000000000000.log";
    let bytes = fs::read(dir.path().join(name)).expect("read");
    let mut entries = 0;
    for cut in (0..=bytes.len()).step_by(7).chain([bytes.len()]) {
        let torn = tempfile::tempdir().expect("temporary folder");
        fs::write(torn.path().join(name), &bytes[..cut]).expect("written");
        let (ledger, recovery) =
            Ledger::open(torn.path(), &LedgerConfig::default()).expect("opens");
        assert!(recovery.entries >= entries, "cut at {cut}");
        entries = recovery.entries;
        for id in 0..entries {
            assert!(ledger.get(&format!("id-{id}")).expect("reads").is_some(), "cut at {cut}");
        }
        append(&ledger, "next").expect("goes on");
    }
    assert_eq!(entries, 3);
}

/// Every byte counts: a changed one is reported wherever it stands, or cut off with the torn end it
/// makes, and never read as something else.
#[test]
fn a_flipped_bit_anywhere_is_found() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), 0..2, &LedgerConfig::default());
    let path = dir.path().join("receipts-0000000000000000.log");
    let bytes = fs::read(&path).expect("read");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, &changed).expect("written");
        assert!(verify_dir(dir.path()).is_err(), "a change of byte {at} was not found");
    }
}

/// The place in the log is part of what is hashed, so a receipt cannot be passed off as another's.
#[test]
fn a_receipt_with_another_index_does_not_verify() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let receipt = write(dir.path(), 0..1, &LedgerConfig::default()).remove(0);
    let moved = Receipt { index: 1, ..receipt };
    let json = serde_json::to_string(&moved).expect("serialises");
    let error = verify_receipt_json(&json).expect_err("moved").to_string();
    assert!(error.contains("does not match"), "{error}");
}
