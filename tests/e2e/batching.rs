//! Requests for different adapters share forwards, and what shares a batch does not matter.

use serde_json::{Value, json};

use crate::harness::{ADAPTERS, Server, chat_body, content, copy_of, heldout, with_alpha};

/// Loads four more adapters: the shipped ones at another scale, so that there are eight contents.
async fn eight_adapters(server: &Server) -> Vec<String> {
    let mut names: Vec<String> = ADAPTERS.iter().map(ToString::to_string).collect();
    let folder = tempfile::tempdir().expect("temporary folder");
    for adapter in ADAPTERS {
        let copy = copy_of(adapter, folder.path());
        with_alpha(&copy, 0.75);
        let name = format!("{adapter}-weaker");
        let (status, answer) =
            server.admin("POST", "/admin/adapters", json!({"name": name, "path": copy})).await;
        assert_eq!(status, 200, "{answer}");
        names.push(name);
    }
    names
}

/// Times that all ask at once before they count as never run together.
const ROUNDS_MAX: usize = 50;

/// Steps in which at least `least` distinct adapters shared a forward, from `/metrics`.
async fn steps_with(server: &Server, least: u32) -> f64 {
    let (_, metrics) = server.get("/metrics").await;
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
    let name = "mortise_engine_step_distinct_adapters";
    let below = format!("{name}_bucket{{le=\"{}.0\"}}", least - 1);
    let line = |prefix: &str| metrics.lines().find(|line| line.starts_with(prefix)).and_then(value);
    let total = line(&format!("{name}_count")).unwrap_or_else(|| panic!("no {name}:\n{metrics}"));
    total - line(&below).unwrap_or_else(|| panic!("no {below}:\n{metrics}"))
}

#[tokio::test]
async fn requests_of_eight_adapters_share_forwards_and_answer_as_if_alone() {
    let server = Server::demo();
    let names = eight_adapters(&server).await;
    let mut alone = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let body = server.chat(name, &heldout(ADAPTERS[index % 4], 2)).await;
        alone.push(content(&body).to_owned());
    }
    // The first answers may be whole before the last question has arrived: then they ask again.
    for _ in 0..ROUNDS_MAX {
        let together = names.iter().enumerate().map(|(index, name)| {
            let prompt = heldout(ADAPTERS[index % 4], 2);
            let server = &server;
            async move { content(&server.chat(name, &prompt).await).to_owned() }
        });
        let together = futures_util::future::join_all(together).await;
        assert_eq!(alone, together);
        if steps_with(&server, 8).await > 0.0 {
            return;
        }
    }
    panic!("no forward had eight distinct adapters");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_in_any_company() {
    let server = Server::demo();
    let seeded = |seed: u64| {
        let mut body = chat_body("npc", &heldout("npc", 3));
        body["temperature"] = json!(1.0);
        body["seed"] = json!(seed);
        body
    };
    let text = async |body: Value| {
        let (status, answer) = server.post("/v1/chat/completions", body).await;
        assert_eq!(status, 200, "{answer}");
        content(&answer).to_owned()
    };
    let alone = text(seeded(7)).await;
    let crowd = (0..16).map(|index| text(seeded(if index == 9 { 7 } else { 100 + index })));
    let crowd = futures_util::future::join_all(crowd).await;
    assert_eq!(crowd[9], alone);
    assert!(crowd.iter().any(|other| *other != alone), "the seed has no effect");
}
