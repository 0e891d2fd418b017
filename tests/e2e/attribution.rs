//! An answer names the contributors of its domain, and its receipt says the same and verifies.

use serde_json::{Value, json};

use crate::harness::{ADAPTERS, Server, chat_body, content, contributors, heldout};

fn attributed(model: &str, prompt: &str) -> Value {
    let mut body = chat_body(model, prompt);
    body["mortise"] = json!({"attribution": true});
    body
}

#[tokio::test]
async fn each_domain_is_credited_to_its_own_contributors() {
    let server = Server::demo();
    for adapter in ADAPTERS {
        let prompt = heldout(adapter, 0);
        let (status, body) =
            server.post("/v1/chat/completions", attributed(adapter, &prompt)).await;
        assert_eq!(status, 200, "{body}");
        assert!(!content(&body).is_empty());
        let attribution = &body["mortise"]["attribution"];
        assert_eq!(attribution["status"], "scored", "{body}");
        let shares = attribution["shares"].as_array().expect("shares");
        let names = contributors(adapter);
        for share in shares {
            let name = share["contributor"].as_str().expect("a name").to_owned();
            assert!(names.contains(&name), "{name} is not a contributor of {adapter}: {names:?}");
        }
        let sum: u64 = shares.iter().filter_map(|share| share["parts_per_billion"].as_u64()).sum();
        assert_eq!(sum, 1_000_000_000);

        let id = body["id"].as_str().expect("an id");
        let (status, receipt) = server.get(&format!("/v1/receipts/{id}")).await;
        assert_eq!(status, 200, "{receipt}");
        let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
        assert_eq!(receipt["attribution"]["shares"].as_array(), Some(shares), "{receipt}");
        assert_eq!(receipt["adapter"]["alias"], adapter);
    }
}

#[tokio::test]
async fn the_router_finds_the_domain_and_the_stream_ends_in_credits() {
    let server = Server::demo();
    let mut right = 0;
    for adapter in ADAPTERS {
        let mut body = attributed("auto", &heldout(adapter, 1));
        body["stream"] = json!(true);
        let events = server.stream("/v1/chat/completions", body).await.expect("a stream");
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let last: Value = serde_json::from_str(&events[events.len() - 2]).expect("JSON");
        let model = last["model"].as_str().expect("a model").to_owned();
        right += usize::from(model == adapter);
        assert_eq!(last["choices"], json!([]));
        assert!(last["mortise"]["receipt"].is_string(), "{last}");
        assert!(last["mortise"]["attribution"]["status"].is_string(), "{last}");
    }
    assert_eq!(right, ADAPTERS.len(), "the router chose another adapter");
}

#[tokio::test]
async fn the_base_model_has_no_corpus_and_says_so() {
    let server = Server::demo();
    let (_, models) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let base = models["data"][0]["id"].as_str().expect("the base comes first").to_owned();
    let (status, body) = server.post("/v1/chat/completions", attributed(&base, "Hello.")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["mortise"]["attribution"]["status"], "none", "{body}");
    assert_eq!(body["mortise"]["attribution"]["shares"], json!([]));
}

/// Whose words stand in the client's own prompt is not whose data the answer came from, and the credits
/// of equal choices are those of one.
#[tokio::test]
async fn echoed_prompts_are_not_credited_and_choices_do_not_overlap() {
    let server = Server::demo();
    let path = crate::harness::root().join("examples/tiny/adapters/support/corpus.jsonl");
    let corpus = std::fs::read_to_string(path).expect("a corpus");
    let line: Value = serde_json::from_str(corpus.lines().next().expect("a line")).expect("JSON");
    let known = line["messages"][1]["content"].as_str().expect("an answer");
    let body = json!({
        "model": "support", "prompt": known, "echo": true, "max_tokens": 1, "temperature": 0,
        "mortise": {"attribution": true},
    });
    let (status, answer) = server.post("/v1/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["text"].as_str().is_some_and(|text| text.starts_with(known)));
    assert_eq!(answer["mortise"]["attribution"]["status"], "none", "{answer}");

    let prompt = heldout("support", 2);
    let (_, one) = server.post("/v1/chat/completions", attributed("support", &prompt)).await;
    let mut several = attributed("support", &prompt);
    several["n"] = json!(3);
    let (_, several) = server.post("/v1/chat/completions", several).await;
    let shares = |answer: &Value| answer["mortise"]["attribution"]["shares"].clone();
    assert!(!shares(&one).as_array().expect("shares").is_empty(), "{one}");
    let parts = |shares: Value| -> Vec<(String, i64)> {
        let of = |share: &Value| {
            let name = share["contributor"].as_str().expect("a name").to_owned();
            (name, share["parts_per_billion"].as_i64().expect("parts"))
        };
        shares.as_array().expect("shares").iter().map(of).collect()
    };
    let (one, several) = (parts(shares(&one)), parts(shares(&several)));
    assert_eq!(one.len(), several.len(), "{one:?} {several:?}");
    for ((name, parts), (same, other)) in one.iter().zip(&several) {
        assert_eq!(name, same);
        assert!((parts - other).abs() <= 10, "{one:?} {several:?}");
    }
}

/// What a plugin answers by itself is nobody's training data.
#[tokio::test]
async fn a_plugins_own_answer_credits_nobody() {
    let path = artifacts::guest("stamp-preprocessor", "1.0.0");
    let server = Server::without_shipped_plugins(&format!(
        "[[plugins]]\nname = \"stamp-preprocessor\"\npath = {path:?}\nconfig = {{ mode = \"respond\" }}\n"
    ));
    let (status, body) =
        server.post("/v1/chat/completions", attributed("support", &heldout("support", 0))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(content(&body), "[pre 1.0.0]");
    let (_, receipt) =
        server.get(&format!("/v1/receipts/{}", body["id"].as_str().expect("an id"))).await;
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert!(receipt["adapter"].is_null() && receipt["corpus_digest"].is_null(), "{receipt}");
    assert_eq!(receipt["attribution"]["status"], "none");
}
