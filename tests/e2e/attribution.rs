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
