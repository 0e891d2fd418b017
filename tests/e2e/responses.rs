//! `/v1/responses`: the same answers as a chat's, whole and in events, and nothing stored.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout};

fn body(prompt: &str) -> Value {
    json!({"model": "npc", "input": prompt, "temperature": 0, "max_output_tokens": 64})
}

#[tokio::test]
async fn a_response_says_what_a_chat_says() {
    let server = Server::demo();
    let prompt = heldout("npc", 0);
    let chat = server.chat("npc", &prompt).await;
    let (status, response) = server.post("/v1/responses", body(&prompt)).await;
    assert_eq!(status, 200, "{response}");
    assert_eq!(response["object"], "response");
    assert_eq!(response["output"][0]["content"][0]["text"], content(&chat));
    assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(response["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    assert_eq!((&response["store"], &response["error"]), (&json!(false), &Value::Null));
    let items = json!([{"role": "user", "content": [{"type": "input_text", "text": prompt}]}]);
    let mut with_items = body(&prompt);
    with_items["input"] = items;
    let (_, same) = server.post("/v1/responses", with_items).await;
    assert_eq!(same["output"][0]["content"], response["output"][0]["content"]);
    // Instructions are the system's turn.
    let mut instructed = body(&prompt);
    instructed["instructions"] = json!("Answer in French.");
    let (_, instructed) = server.post("/v1/responses", instructed).await;
    let mut chat = chat_body("npc", &prompt);
    let system = json!({"role": "system", "content": "Answer in French."});
    chat["messages"].as_array_mut().expect("messages").insert(0, system);
    let (_, chat) = server.post("/v1/chat/completions", chat).await;
    assert_eq!(instructed["output"][0]["content"][0]["text"], content(&chat));
    // It has a receipt, and can't be asked for again.
    let id = response["id"].as_str().expect("an id");
    assert_eq!(response["mortise"]["receipt"], id);
    assert_eq!(server.get(&format!("/v1/receipts/{id}")).await.0, 200);
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_response_in_events_ends_in_the_whole() {
    let server = Server::demo();
    let mut asked = body(&heldout("npc", 0));
    asked["max_output_tokens"] = json!(9);
    asked["ignore_eos"] = json!(true);
    let (_, whole) = server.post("/v1/responses", asked.clone()).await;
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    asked["stream"] = json!(true);
    let request = server.client.post(format!("{}/v1/responses", server.url)).json(&asked);
    let text = request.send().await.expect("a stream").text().await.expect("events");
    let mut names = Vec::new();
    let mut events: Vec<Value> = Vec::new();
    for event in text.split("\n\n").filter(|event| event.starts_with("event: ")) {
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        names.push(name.trim_start_matches("event: ").to_owned());
        events.push(serde_json::from_str(data).expect("JSON"));
    }
    for (index, (name, event)) in names.iter().zip(&events).enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(index)));
    }
    let first = ["response.created", "response.in_progress", "response.output_item.added"];
    assert_eq!(names[..3], first);
    assert_eq!(names.last().map(String::as_str), Some("response.incomplete"));
    let deltas = events.iter().filter_map(|event| event["delta"].as_str());
    let text = whole["output"][0]["content"][0]["text"].as_str().expect("text");
    assert_eq!(deltas.collect::<String>(), text);
    let last = &events[events.len() - 1]["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(last["usage"]["output_tokens"], 9);
}

#[tokio::test]
async fn what_a_response_cannot_have_is_refused_by_name() {
    let server = Server::demo();
    for (field, value, param) in [
        ("previous_response_id", json!("resp-1"), "previous_response_id"),
        ("background", json!(true), "background"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("max_output_tokens", json!(1_000_000), "input"),
        ("temperature", json!(9), "temperature"),
        ("input", json!([]), "input"),
        ("model", json!("nobody"), "model"),
    ] {
        let mut asked = body("hi");
        asked[field] = value;
        let (status, answer) = server.post("/v1/responses", asked).await;
        assert!(matches!(status, 400 | 404), "{answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
    }
}
