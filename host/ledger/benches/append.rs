//! Receipts per second, each acknowledged after its fsync, from 1 to 256 callers at once, and how long
//! opening a log of them takes.
//!
//! `cargo bench -p ledger` writes to the folder that `TMPDIR` names: on a memory file system it says
//! nothing. It asserts nothing.

use std::sync::mpsc;
use std::time::Instant;

use ledger::{AttributionRecord, Digest, Entry, Ledger, LedgerConfig, ShareRecord, UsageRecord};

const RECEIPTS: usize = 4096;

fn entry(id: String) -> Entry {
    let share = |number: u32| ShareRecord {
        contributor: format!("contributor-{number}"),
        parts_per_billion: 250_000_000,
    };
    Entry {
        id,
        unix_ms: 1_700_000_000_000,
        tenant: "default".to_owned(),
        status: "completed".to_owned(),
        model: "wallet-risk".to_owned(),
        request_digest: Digest([1; 32]),
        output_digest: Digest([2; 32]),
        base_digest: Digest([3; 32]),
        tokenizer_digest: Digest([4; 32]),
        adapter: None,
        plugins: Vec::new(),
        corpus_digest: Some(Digest([5; 32])),
        attribution: AttributionRecord {
            method: "spans@1+span-rarity@0.1.0".to_owned(),
            status: "scored".to_owned(),
            spans: 4,
            shares: (0..4).map(share).collect(),
            note: None,
        },
        usage: UsageRecord { prompt_tokens: 36, completion_tokens: 82, cached_tokens: 32 },
        finish_reason: "stop".to_owned(),
        seed: 7,
    }
}

fn append(ledger: &Ledger, id: String) {
    let (sender, receiver) = mpsc::channel();
    let told = move |result| sender.send(result).expect("the caller waits");
    ledger.append(entry(id), told).expect("the log is open");
    receiver.recv().expect("an answer").expect("written");
}

fn main() {
    println!("{:>8} {:>12} {:>14} {:>9}", "callers", "receipts/s", "ms per receipt", "open ms");
    for callers in [1, 8, 64, 256] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (log, _) = Ledger::open(dir.path(), &LedgerConfig::default()).expect("opens");
        let each = (RECEIPTS / callers).min(256);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for caller in 0..callers {
                let log = &log;
                scope.spawn(move || {
                    (0..each).for_each(|number| append(log, format!("{caller}-{number}")));
                });
            }
        });
        let elapsed = started.elapsed().as_secs_f64();
        drop(log);
        let started = Instant::now();
        drop(Ledger::open(dir.path(), &LedgerConfig::default()).expect("opens"));
        println!(
            "{callers:>8} {:>12.0} {:>14.3} {:>9.1}",
            (callers * each) as f64 / elapsed,
            elapsed * 1e3 / each as f64,
            started.elapsed().as_secs_f64() * 1e3,
        );
    }
}
