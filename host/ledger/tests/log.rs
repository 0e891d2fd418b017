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
    assert!(written == fs::read(&fixture).expect("fixture"), "the bytes differ");
    let old = tempfile::tempdir().expect("temporary folder");
    fs::copy(&fixture, old.path().join("receipts-0000000000000000.log")).expect("copied");
    assert_eq!(verify_dir(old.path()).expect("verifies").entries, 3);
}
