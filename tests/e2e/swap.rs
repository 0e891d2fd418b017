//! Every kind of plugin is swapped twenty times under 32 streams: no request fails, and each runs on
//! one version of each plugin from its first byte to its receipt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, heldout};

const STREAMS: usize = 32;
const SWAPS: usize = 20;
/// Requests that end between two swaps, so that each swap meets others in flight.
const BETWEEN: usize = 3;
const KINDS: [&str; 5] = ["router", "preprocessor", "postprocessor", "scorer", "agent"];
const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];

/// What the requests have in common.
struct Load<'a> {
    server: &'a Server,
    stop: AtomicBool,
    ended: AtomicUsize,
    /// Versions seen, by kind.
    seen: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

/// One streamed answer.
struct Streamed {
    id: String,
    model: String,
    text: String,
}

impl Load<'_> {
    /// One stream after the other until the swaps are over.
    async fn run(&self, number: usize) {
        let mut turn = number;
        while !self.stop.load(Ordering::Relaxed) {
            match turn % 3 {
                0 => self.chat(turn).await,
                1 => self.completion().await,
                _ => self.agent().await,
            }
            turn += 1;
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn stream(&self, path: &str, mut body: Value) -> Streamed {
        body["stream"] = json!(true);
        body["mortise"] = json!({"attribution": true});
        let events = self.server.stream(path, body).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
        let mut streamed =
            Streamed { id: String::new(), model: String::new(), text: String::new() };
        for event in &events[..events.len() - 1] {
            let chunk: Value = serde_json::from_str(event).expect("JSON");
            assert!(chunk["error"].is_null(), "{chunk}");
            streamed.id = chunk["id"].as_str().expect("an id").to_owned();
            streamed.model = chunk["model"].as_str().expect("a model").to_owned();
            let choice = &chunk["choices"][0];
            let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
            streamed.text.push_str(text.unwrap_or_default());
        }
        streamed
    }

    /// Version of each kind in the receipt; a kind with two versions fails.
    async fn versions(&self, id: &str) -> BTreeMap<String, String> {
        let (status, receipt) = self.server.get(&format!("/v1/receipts/{id}")).await;
        assert_eq!(status, 200, "{receipt}");
        let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
        assert_eq!(receipt["status"], "completed", "{receipt}");
        let mut versions = BTreeMap::new();
        for plugin in receipt["plugins"].as_array().expect("plugins") {
            assert!(plugin["fault"].is_null(), "{receipt}");
            let text = |key: &str| plugin[key].as_str().expect("text").to_owned();
            let (kind, version) = (text("kind"), text("version"));
            let before = versions.insert(kind, version.clone());
            assert!(before.is_none_or(|before| before == version), "two versions: {receipt}");
        }
        let mut seen = self.seen.lock().expect("no panic");
        for (kind, version) in &versions {
            seen.entry(kind.clone()).or_default().insert(version.clone());
        }
        versions
    }

    /// Router, preprocessor, postprocessor and scorer.
    async fn chat(&self, turn: usize) {
        let mut body = chat_body("auto", &heldout("npc", turn % 16));
        body["max_tokens"] = json!(12);
        let streamed = self.stream("/v1/chat/completions", body).await;
        let versions = self.versions(&streamed.id).await;
        let expect = if versions["router"] == "1.0.0" { "npc" } else { "support" };
        assert_eq!(streamed.model, expect, "{versions:?}");
        assert_stamped(&streamed.text, &versions["postprocessor"]);
    }

    /// The prompt is echoed, and with it what the preprocessor did to it.
    async fn completion(&self) {
        let body = json!({
            "model": "npc", "prompt": "Well met.", "echo": true, "temperature": 0, "max_tokens": 12,
        });
        let streamed = self.stream("/v1/completions", body).await;
        let versions = self.versions(&streamed.id).await;
        let stamp = format!("[pre {}]", versions["preprocessor"]);
        // What is echoed is the client's own text, which no postprocessor reads.
        let answer = streamed.text.split_once(&stamp).map(|(_, answer)| answer);
        let answer = answer.unwrap_or_else(|| panic!("{} {versions:?}", streamed.text));
        assert_stamped(answer, &versions["postprocessor"]);
    }

    async fn agent(&self) {
        let streamed =
            self.stream("/v1/chat/completions", chat_body("agent:stamp-agent", "Go.")).await;
        let versions = self.versions(&streamed.id).await;
        let stamp = format!("[agent {}]", versions["agent"]);
        assert!(streamed.text.contains(&stamp), "{} {versions:?}", streamed.text);
        assert_stamped(&streamed.text, &versions["postprocessor"]);
    }

    /// Swaps each kind in turn while the streams run.
    async fn swap(&self) {
        for kind in KINDS {
            for swap in 1..=SWAPS {
                let target = self.ended.load(Ordering::Relaxed) + BETWEEN;
                while self.ended.load(Ordering::Relaxed) < target {
                    tokio::task::yield_now().await;
                }
                let path = format!("/admin/plugins/stamp-{kind}/activate");
                let body = json!({"version": VERSIONS[swap % 2]});
                let (status, answer) = self.server.admin("POST", &path, body).await;
                assert_eq!(status, 200, "{kind}: {answer}");
            }
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn assert_stamped(text: &str, version: &str) {
    let stamp = format!("[post {version}]");
    let whole = text.starts_with(&stamp) && text.ends_with(&stamp);
    assert!(whole && text.matches("[post ").count() == 2, "not wholly on {version}: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_swaps_of_each_kind_under_32_streams() {
    let mut config = String::new();
    for kind in KINDS {
        let path = artifacts::guest(&format!("stamp-{kind}"), "1.0.0");
        config.push_str(&format!("[[plugins]]\nname = \"stamp-{kind}\"\npath = {path:?}\n"));
        if kind == "router" {
            config.push_str("config = { \"1.0.0\" = \"npc\", \"2.0.0\" = \"support\" }\n");
        }
    }
    let server = Server::without_shipped_plugins(&config);
    for kind in KINDS {
        let path = artifacts::guest(&format!("stamp-{kind}"), "2.0.0");
        let (status, answer) = server.admin("POST", "/admin/plugins", json!({"path": path})).await;
        assert_eq!(status, 200, "{answer}");
    }
    let load = Load {
        server: &server,
        stop: AtomicBool::new(false),
        ended: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    let streams = futures_util::future::join_all((0..STREAMS).map(|number| load.run(number)));
    futures_util::future::join(streams, load.swap()).await;

    let requests = load.ended.load(Ordering::Relaxed);
    assert!(requests >= KINDS.len() * SWAPS * BETWEEN, "{requests} requests");
    let seen = load.seen.into_inner().expect("no panic");
    for kind in KINDS {
        assert_eq!(seen[kind].len(), 2, "{kind}: {seen:?}");
    }
    let (_, plugins) = server.admin("GET", "/admin/plugins", json!({})).await;
    assert!(!plugins.to_string().contains("draining"), "an old version was kept: {plugins}");
}
