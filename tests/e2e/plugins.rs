//! The shipped plugins in the path of real requests.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout};

fn configured(name: &str, config: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{name}\"\ngrants = [\"corpus\", \"generate\"]\nconfig = {config}\n"
    )
}

#[tokio::test]
async fn secrets_do_not_reach_the_model() {
    let server = Server::demo();
    let key = "sk-proj-4f9A8b7C6d5E4f3A2b1C0d9E8f7A6b5C4d3E2f1A";
    let prompt = format!("Write to ada@example.org with the key {key} please.");
    let body = json!({
        "model": "npc", "prompt": prompt, "echo": true, "temperature": 0, "max_tokens": 2,
    });
    let (status, answer) = server.post("/v1/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().expect("text");
    assert!(text.contains("Write to") && text.contains("please."), "{text}");
    assert!(!text.contains("ada@example.org") && !text.contains(key), "{text}");
}

#[tokio::test]
async fn a_preprocessor_may_reject_with_its_status() {
    let server = Server::with_config(&configured("redact", "{ on_match = \"reject\" }"));
    let body = chat_body("npc", "My card is 4111 1111 1111 1111.");
    let (status, answer) = server.post("/v1/chat/completions", body).await;
    assert_eq!(status, 422, "{answer}");
    assert!(!answer.to_string().contains("4111"), "the secret is in the answer: {answer}");
    assert!(!content(&server.chat("npc", &heldout("npc", 0)).await).is_empty());
}

#[tokio::test]
async fn a_word_is_masked_though_it_comes_in_pieces() {
    let plain = Server::demo();
    let prompt = heldout("wallet-risk", 0);
    let whole = content(&plain.chat("wallet-risk", &prompt).await).to_owned();
    let word = whole.split(|c: char| !c.is_alphabetic()).max_by_key(|word| word.len());
    let word = word.expect("a word");
    let mask = |on_match: &str| {
        let config = format!("{{ words = [{word:?}], on_match = {on_match:?} }}");
        Server::with_config(&configured("mask", &config))
    };

    let masked = mask("mask");
    let mut body = chat_body("wallet-risk", &prompt);
    body["stream"] = json!(true);
    let events = masked.stream("/v1/chat/completions", body).await.expect("a stream");
    let chunk = |event: &String| serde_json::from_str::<Value>(event).expect("JSON");
    let chunks = events[..events.len() - 1].iter().map(chunk);
    let pieces: Vec<String> = chunks
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert!(pieces.len() > 10, "the answer came in one piece");
    assert_eq!(pieces.concat(), whole.replace(word, "***"));

    let stopped = mask("stop").chat("wallet-risk", &prompt).await;
    assert_eq!(stopped["choices"][0]["finish_reason"], "content_filter", "{stopped}");
    let before = &whole[..whole.find(word).expect("it is there")];
    assert!(content(&stopped).trim_end().len() <= before.len() + 3, "{stopped}");
    assert!(!content(&stopped).contains(word), "{stopped}");
}

#[tokio::test]
async fn an_agent_calculates_and_is_held_to_its_budget() {
    let server = Server::demo();
    let answer = server.chat("agent:solver", "What is 12.5% of 320 plus 7?").await;
    assert!(content(&answer).contains("47"), "{answer}");
    assert!(answer["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{answer}");
    let path = format!("/v1/receipts/{}", answer["mortise"]["receipt"].as_str().expect("an id"));
    let (_, receipt) = server.get(&path).await;
    assert!(receipt.contains("\"solver\""), "{receipt}");
    let small = Server::with_config(
        "[[plugins]]\nname = \"solver\"\ngrants = [\"generate\"]\nbudget_tokens = 1\n",
    );
    // Without tokens to ask the model with, what the calculator found is still the answer.
    let answer = small.chat("agent:solver", "What is 6*7?").await;
    assert!(content(&answer).contains("42"), "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 0, "{answer}");
    let (status, answer) =
        small.post("/v1/chat/completions", chat_body("agent:nobody", "Hi")).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (404, Some("model_not_found")));
}

#[tokio::test]
async fn nothing_close_goes_to_the_base() {
    let server = Server::demo();
    let (_, models) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let answer = server.chat("auto", "zxq vvk wpf 99 ((").await;
    assert_eq!(answer["model"], models["data"][0]["id"], "{answer}");
}
