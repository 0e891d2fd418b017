//! `kill -9` while answers are written, again and again: the chain verifies and no receipt that a
//! client was told of is missing.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{ADAPTERS, BINARY, Server, Setup, chat_body, heldout};

const KILLS: usize = 20;
const CLIENTS: usize = 8;

/// Hash of every receipt that a client has been told of, by id.
type Acknowledged = Mutex<BTreeMap<String, String>>;

/// Asks until the server is gone.
async fn ask(server: &Server, client: usize, acknowledged: &Acknowledged, count: &AtomicUsize) {
    for turn in 0.. {
        let adapter = ADAPTERS[(client + turn) % ADAPTERS.len()];
        let mut body = chat_body(adapter, &heldout(adapter, turn % 8));
        body["max_tokens"] = 4.into();
        let request = server.client.post(format!("{}/v1/chat/completions", server.url));
        let Ok(response) = request.json(&body).send().await else { return };
        let Ok(answer) = response.json::<Value>().await else { return };
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let id = text(&answer["mortise"]["receipt"]);
        let hash = text(&answer["mortise"]["receipt_hash"]);
        acknowledged.lock().expect("no panic").insert(id, hash);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends once `target` answers have come since the start.
async fn wait_for(count: &AtomicUsize, target: usize) {
    while count.load(Ordering::Relaxed) < target {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing() {
    let data = tempfile::tempdir().expect("temporary folder");
    let (path, config) = (data.path().to_owned(), String::new());
    let setup = Setup { data: path, config, plugins: true, adapters: None };
    let acknowledged = Acknowledged::default();
    for kill in 0..KILLS {
        let mut server = Server::start(&setup);
        verify(&setup, kill);
        let count = AtomicUsize::new(0);
        let clients = (0..CLIENTS).map(|client| ask(&server, client, &acknowledged, &count));
        let load = futures_util::future::join_all(clients);
        // A different moment each time, always with requests in flight.
        tokio::select! {
            _ = load => panic!("the server went by itself:\n{}", server.log_text()),
            () = wait_for(&count, 1 + kill * 3 % 17) => server.signal("KILL"),
        }
        assert_eq!(server.wait(), None);
    }
    let acknowledged = acknowledged.into_inner().expect("no panic");
    assert!(acknowledged.len() >= KILLS);
    let server = Server::start(&setup);
    verify(&setup, KILLS);
    for (id, hash) in &acknowledged {
        let (status, receipt) = server.get(&format!("/v1/receipts/{id}")).await;
        assert_eq!(status, 200, "receipt {id} is lost: {receipt}");
        let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
        assert_eq!(receipt["hash"], *hash.as_str());
    }
}

/// The log verifies once a server has opened it again and cut a torn tail.
fn verify(setup: &Setup, kill: usize) {
    let output = Command::new(BINARY)
        .args(["receipt", "verify"])
        .arg(&setup.data)
        .output()
        .expect("the binary starts");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "after {kill} kills: {out}{err}");
}
