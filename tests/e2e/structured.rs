//! Answers that must fit a format: they do, whatever the model would rather say, and alone or not.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"risk": {"enum": ["low", "high"]}, "score": {"type": "integer", "maximum": 99}},
        "required": ["risk", "score"],
        "additionalProperties": false,
    })
}

fn with(prompt: &str, more: Value) -> Value {
    let mut body = chat_body("npc", prompt);
    body["max_tokens"] = json!(200);
    body.as_object_mut().expect("a body").extend(more.as_object().expect("fields").clone());
    body
}

fn fits(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    matches!(value["risk"].as_str(), Some("low" | "high")) && value["score"].is_i64()
}

#[tokio::test]
async fn answers_fit_their_schema_alone_and_in_company() {
    let server = Server::demo();
    let prompt = heldout("npc", 0);
    let format = json!({"type": "json_schema", "json_schema": {
        "name": "risk", "strict": true, "schema": schema(),
    }});
    let free = server.chat("npc", &prompt).await;
    let bound = with(&prompt, json!({"response_format": format}));
    let (status, alone) = server.post("/v1/chat/completions", bound.clone()).await;
    assert_eq!(status, 200, "{alone}");
    assert!(fits(content(&alone)), "{alone}");
    assert_eq!(alone["choices"][0]["finish_reason"], "stop");
    // The same bits beside answers that are free, and beside others that are bound.
    let ask = |body: Value| server.post("/v1/chat/completions", body);
    let bodies = (0..8).map(|index| match index % 2 {
        0 => bound.clone(),
        _ => chat_body("npc", &prompt),
    });
    let answers = futures_util::future::join_all(bodies.map(ask)).await;
    for (index, (_, answer)) in answers.iter().enumerate() {
        let expect = if index % 2 == 0 { &alone } else { &free };
        assert_eq!(content(answer), content(expect), "{index}");
    }
    // Choices that are drawn each fit, and a stream says what the whole says.
    let drawn = json!({"response_format": format, "n": 3, "temperature": 1.5, "seed": 4});
    let (_, drawn) = server.post("/v1/chat/completions", with(&prompt, drawn)).await;
    for choice in drawn["choices"].as_array().expect("choices") {
        assert!(fits(choice["message"]["content"].as_str().expect("text")), "{choice}");
    }
    let mut streamed = bound;
    streamed["stream"] = json!(true);
    let lines = server.stream("/v1/chat/completions", streamed).await.expect("a stream");
    let chunks = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text: String = chunks
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, content(&alone));
}

#[tokio::test]
async fn every_way_to_bound_an_answer() {
    let server = Server::demo();
    let text = async |more: Value| {
        let (status, answer) = server.post("/v1/chat/completions", with("hello", more)).await;
        assert_eq!(status, 200, "{answer}");
        content(&answer).to_owned()
    };
    assert!(fits(&text(json!({"structured_outputs": {"json": schema()}})).await));
    assert!(fits(&text(json!({"guided_json": schema().to_string()})).await));
    let found = text(json!({"structured_outputs": {"regex": "[ab]{2}-[0-9]"}})).await;
    assert_eq!((found.len(), &found[2..3]), (4, "-"), "{found}");
    let found = text(json!({"guided_choice": ["yes", "no"]})).await;
    assert!(matches!(found.as_str(), "yes" | "no"), "{found}");
    let many: Vec<String> = (0..5_000).map(|number| format!("v{number}")).collect();
    let found = text(json!({"guided_choice": many})).await;
    assert!(many.contains(&found), "{found}");
    let found = text(json!({"structured_outputs": {"grammar": "start: \"x\" \"y\""}})).await;
    assert_eq!(found, "xy");
    let completion = json!({
        "model": "npc", "prompt": ["a", "b"], "max_tokens": 9, "guided_regex": "[0-9]{3}",
    });
    let (_, answer) = server.post("/v1/completions", completion).await;
    for choice in answer["choices"].as_array().expect("choices") {
        let text = choice["text"].as_str().expect("text");
        assert!(text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    let format = json!({"type": "json_schema", "name": "risk", "schema": schema()});
    let response = json!({
        "model": "npc", "input": "hello", "text": {"format": format}, "max_output_tokens": 200,
    });
    let (status, response) = server.post("/v1/responses", response).await;
    assert_eq!(status, 200, "{response}");
    assert!(fits(response["output"][0]["content"][0]["text"].as_str().expect("text")));
    assert_eq!(response["text"]["format"]["name"], "risk");
    // What is cut off is told as such.
    let cut = with("hello", json!({"structured_outputs": {"json": schema()}, "max_tokens": 3}));
    let (_, cut) = server.post("/v1/chat/completions", cut).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn formats_that_can_t_be_are_refused_by_name() {
    let server = Server::demo();
    for (more, param) in [
        (json!({"response_format": {"type": "xml"}}), "response_format"),
        (json!({"guided_regex": "("}), "response_format"),
        (json!({"structured_outputs": {"choice": []}}), "response_format"),
        (json!({"guided_grammar": "start: start"}), "response_format"),
        (json!({"guided_json": {"$ref": "#"}, "stream": true}), "response_format"),
        (json!({"structured_outputs": {"json": {"type": "shape"}}}), "response_format"),
        (json!({"guided_regex": "a", "guided_choice": ["b"]}), "guided_choice"),
        (json!({"guided_regex": "a", "ignore_eos": true}), "ignore_eos"),
        (json!({"guided_regex": "a", "min_tokens": 2}), "min_tokens"),
        (json!({"guided_regex": "a", "model": "agent:solver"}), "response_format"),
    ] {
        let (status, answer) = server.post("/v1/chat/completions", with("hello", more)).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
    assert!(!content(&server.chat("npc", "hello").await).is_empty());
}
