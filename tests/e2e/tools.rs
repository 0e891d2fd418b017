//! Tools: calls that are asked for are made and fit, calls in what a model writes are found, and what is no
//! call stays text.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout, sha256_of};

const CHAT: &str = "/v1/chat/completions";

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"risk": {"$ref": "#/$defs/Risk"}, "score": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["risk", "score"],
        "additionalProperties": false,
        "$defs": {"Risk": {"enum": ["low", "high"]}},
    })
}

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "rate", "description": "Rates.", "parameters": parameters()}},
        {"type": "function", "function": {"name": "skip"}},
    ])
}

fn with(more: Value) -> Value {
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["max_tokens"] = json!(200);
    body["tools"] = tools();
    body.as_object_mut().expect("a body").extend(more.as_object().expect("fields").clone());
    body
}

/// What the chunks of a stream add up to: content, calls as (id, name, arguments), and the reason.
async fn streamed(server: &Server, mut body: Value) -> (String, Vec<[String; 3]>, String) {
    body["stream"] = json!(true);
    let (mut text, mut calls, mut reason) = (String::new(), Vec::new(), String::new());
    for event in server.stream(CHAT, body).await.expect("a stream") {
        let Ok(chunk) = serde_json::from_str::<Value>(&event) else { continue };
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().unwrap_or(&Vec::new()) {
            let index = call["index"].as_u64().expect("an index") as usize;
            if index == calls.len() {
                assert_eq!(call["type"], "function");
                calls.push(Default::default());
            }
            let so_far: &mut [String; 3] = &mut calls[index];
            let more = [&call["id"], &call["function"]["name"], &call["function"]["arguments"]];
            for (part, more) in so_far.iter_mut().zip(more) {
                part.push_str(more.as_str().unwrap_or_default());
            }
        }
        reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    (text, calls, reason)
}

/// Asks for one answer plainly and in a stream, which agree but for the ids.
async fn both(server: &Server, body: Value) -> (String, Vec<[String; 2]>, String) {
    let (status, answer) = server.post(CHAT, body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let none = Vec::new();
    let calls = choice["message"]["tool_calls"].as_array().unwrap_or(&none).iter();
    let calls: Vec<[String; 2]> = calls
        .map(|call| [text(&call["function"]["name"]), text(&call["function"]["arguments"])])
        .collect();
    let content = choice["message"]["content"].as_str().unwrap_or_default().to_owned();
    let reason = text(&choice["finish_reason"]);
    let (said, called, ended) = streamed(server, body).await;
    assert!(called.iter().all(|[id, _, _]| id.starts_with("call_")), "{called:?}");
    let called: Vec<[String; 2]> =
        called.into_iter().map(|[_, name, given]| [name, given]).collect();
    assert_eq!((&said, &called, &ended), (&content, &calls, &reason));
    (content, calls, reason)
}

fn fits(arguments: &str) -> bool {
    let given: Value =
        serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
    matches!(given["risk"].as_str(), Some("low" | "high"))
        && given["score"].as_u64().is_some_and(|n| n < 100)
}

#[tokio::test]
async fn calls_that_are_asked_for_are_made() {
    let server = Server::demo();
    let named = json!({"type": "function", "function": {"name": "rate"}});
    let (text, calls, reason) = both(&server, with(json!({"tool_choice": named}))).await;
    assert_eq!((text.as_str(), calls.len(), reason.as_str()), ("", 1, "stop"));
    assert!(calls[0][0] == "rate" && fits(&calls[0][1]), "{calls:?}");
    let (text, calls, reason) =
        both(&server, with(json!({"tool_choice": "required", "parallel_tool_calls": false}))).await;
    assert_eq!((text.as_str(), calls.len(), reason.as_str()), ("", 1, "tool_calls"));
    let (_, calls, _) =
        both(&server, with(json!({"tool_choice": "required", "max_tokens": 400}))).await;
    assert!(calls.iter().all(|[name, given]| name == "skip" || fits(given)), "{calls:?}");
    // With none, nothing differs from a request without tools.
    let (text, calls, _) = both(&server, with(json!({"tool_choice": "none"}))).await;
    let mut plain = with(json!({}));
    plain["tools"] = json!([]);
    let (_, plain) = server.post(CHAT, plain).await;
    assert_eq!((text.as_str(), calls.len()), (content(&plain), 0));
}

#[tokio::test]
async fn receipts_have_the_text_as_it_was_generated() {
    let server = Server::without_shipped_plugins("");
    let ask = async |more: Value| {
        let (status, answer) = server.post(CHAT, with(more)).await;
        assert_eq!(status, 200, "{answer}");
        let path = format!("/v1/receipts/{}", answer["id"].as_str().expect("an id"));
        let receipt: Value = serde_json::from_str(&server.get(&path).await.1).expect("a receipt");
        (answer["choices"][0]["message"].clone(), receipt)
    };
    let named = json!({"type": "function", "function": {"name": "rate"}});
    let (message, receipt) = ask(json!({"tool_choice": named})).await;
    let text = message["tool_calls"][0]["function"]["arguments"].as_str().expect("arguments");
    let field = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    assert_eq!(receipt["output_digest"], sha256_of(&field));
    let (_, other) = ask(json!({"tool_choice": named, "tools": [tools()[0]]})).await;
    assert_ne!(other["request_digest"], receipt["request_digest"], "tools are part of the request");
}

#[tokio::test]
async fn calls_of_the_model_s_own_accord_are_found() {
    let server = Server::with_config("tool_call_parser = \"hermes\"\n");
    let bound = |pattern: &str| with(json!({"structured_outputs": {"regex": pattern}}));
    let call = "<tool_call>\\n\\{\"name\": \"rate\", \"arguments\": \\{\"score\": [0-9]{2}\\}\\}\\n</tool_call>";
    let (text, calls, reason) = both(&server, bound(&format!("I look\\.\\n{call}\\n{call}"))).await;
    assert_eq!((text.as_str(), calls.len(), reason.as_str()), ("I look.", 2, "tool_calls"));
    let given: Value = serde_json::from_str(&calls[1][1]).expect("JSON");
    assert!(given["score"].as_u64().is_some_and(|score| score < 100), "{calls:?}");
    let mut one = bound(&format!("{call}{call}"));
    one["parallel_tool_calls"] = json!(false);
    let (_, calls, _) = both(&server, one).await;
    assert_eq!(calls.len(), 1);
    // What is no call stays as it is.
    let broken = "<tool_call>\\{\"name\": [0-9]{3}\\}</tool_call>";
    let (text, calls, reason) = both(&server, bound(broken)).await;
    assert!(
        text.starts_with("<tool_call>{\"name\": ") && text.ends_with("}</tool_call>"),
        "{text}"
    );
    assert_eq!((calls.len(), reason.as_str()), (0, "stop"));
    // An answer without calls is the answer that it was.
    let (text, calls, _) = both(&server, with(json!({}))).await;
    let mut plain = with(json!({}));
    plain["tools"] = Value::Null;
    let (_, plain) = server.post(CHAT, plain).await;
    assert_eq!((text.as_str(), calls.len()), (content(&plain), 0));
    // Nor does a call end what is cut off.
    let mut cut = with(json!({"tool_choice": "required"}));
    cut["max_tokens"] = json!(4);
    let (_, calls, reason) = both(&server, cut).await;
    assert_eq!((calls.len(), reason.as_str()), (0, "length"));
}

#[tokio::test]
async fn tools_that_can_t_be_called_are_refused_by_name() {
    let server = Server::demo();
    let schema = json!({"type": "object", "properties": {"a": {"type": "shape"}}});
    let bad = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    let named = json!({"type": "function", "function": {"name": "nobody"}});
    for (more, param) in [
        // The demo's template knows no tools.
        (json!({}), "tool_choice"),
        (json!({"tool_choice": named}), "tool_choice"),
        (json!({"tool_choice": "required", "tools": bad}), "tools"),
        (json!({"tool_choice": "required", "model": "agent:solver"}), "tools"),
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
        (
            json!({"tools": [], "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        let (status, answer) = server.post(CHAT, with(more)).await;
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
}

#[tokio::test]
async fn responses_have_calls_as_items() {
    let server = Server::demo();
    let tools =
        json!([{"type": "function", "name": "rate", "parameters": parameters(), "strict": true}]);
    let body = json!({
        "model": "npc", "input": heldout("npc", 0), "temperature": 0, "max_output_tokens": 200, "tools": tools,
        "tool_choice": {"type": "function", "name": "rate"},
    });
    let (status, answer) = server.post("/v1/responses", body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let call = &answer["output"][0];
    assert_eq!(
        (answer["output"].as_array().map(Vec::len), &call["type"]),
        (Some(1), &json!("function_call"))
    );
    assert!(fits(call["arguments"].as_str().expect("arguments")), "{answer}");
    let result =
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"});
    let turns = json!([{"role": "user", "content": "?"}, call, result]);
    let mut on = body;
    (on["input"], on["tool_choice"]) = (turns, json!("none"));
    let (status, answer) = server.post("/v1/responses", on).await;
    assert_eq!((status, &answer["output"][0]["type"]), (200, &json!("message")), "{answer}");
}
