//! Fields and headers that clients of other servers send: each has its effect, or is refused by name.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout};

#[tokio::test]
async fn a_clients_request_id_comes_back() {
    let server = Server::demo();
    let send = async |path: &str, id: Option<&str>, body: Value| {
        let mut request = server.client.post(format!("{}{path}", server.url)).json(&body);
        request = request.header("x-correlation-id", "c").header("x-session-affinity", "s");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        request.send().await.expect("an answer")
    };
    let id_of = |response: &reqwest::Response| {
        let header = response.headers().get("x-request-id");
        header.map(|id| id.to_str().expect("ASCII").to_owned())
    };
    let mut body = chat_body("npc", "hi");
    body["max_tokens"] = json!(1);
    let chat = "/v1/chat/completions";
    assert_eq!(id_of(&send(chat, Some("mine-1"), body.clone()).await).as_deref(), Some("mine-1"));
    let own = send(chat, None, body.clone()).await;
    let header = id_of(&own);
    let answer: Value = own.json().await.expect("JSON");
    assert_eq!(header.as_deref(), answer["id"].as_str(), "without one, the receipt's id");
    for (length, back) in [(255, true), (256, true), (257, false)] {
        let id = "x".repeat(length);
        let found = id_of(&send(chat, Some(&id), body.clone()).await);
        assert_eq!(found.as_deref() == Some(id.as_str()), back, "{length} bytes");
    }
    let refused = send(chat, Some("mine-2"), json!({"model": "nobody"})).await;
    assert_eq!((refused.status().as_u16(), id_of(&refused).as_deref()), (400, Some("mine-2")));
}

#[tokio::test]
async fn probes_answer_to_get_and_head() {
    let server = Server::demo();
    for path in ["/health", "/ping", "/ready", "/version", "/metrics", "/v1/models"] {
        let url = format!("{}{path}", server.url);
        let got = server.client.get(&url).send().await.expect("an answer");
        assert_eq!(got.status(), 200, "{path}");
        let head = server.client.head(&url).send().await.expect("an answer");
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(head.headers()["content-type"], got.headers()["content-type"], "{path}");
        assert_eq!(head.bytes().await.expect("no body").len(), 0, "{path}");
    }
    let (_, models) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let base = models["data"][0]["id"].as_str().expect("the base");
    let npc = models["data"].as_array().expect("models").iter().find(|model| model["id"] == "npc");
    let npc = npc.expect("the adapter");
    assert_eq!((npc["parent"].as_str(), npc["root"].as_str()), (Some(base), Some("npc")));
}

#[tokio::test]
async fn token_ids_are_those_that_were_read_and_written() {
    let server = Server::demo();
    let prompt = heldout("npc", 0);
    let mut body = chat_body("npc", &prompt);
    body["return_token_ids"] = json!(true);
    body["max_tokens"] = json!(12);
    let (status, whole) = server.post("/v1/chat/completions", body.clone()).await;
    assert_eq!(status, 200, "{whole}");
    let messages = json!({"messages": body["messages"]});
    let (_, tokens) = server.post("/tokenize", messages).await;
    assert_eq!(whole["prompt_token_ids"], tokens["tokens"]);
    let ids = &whole["choices"][0]["token_ids"];
    let (_, back) = server.post("/detokenize", json!({"tokens": ids})).await;
    assert_eq!(back["prompt"], content(&whole));
    // A stream tells the same, token by token.
    body["stream"] = json!(true);
    let lines = server.stream("/v1/chat/completions", body).await.expect("a stream");
    let chunks: Vec<Value> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(chunks[0]["prompt_token_ids"], tokens["tokens"]);
    let streamed = chunks.iter().filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array());
    let streamed: Vec<Value> = streamed.flatten().cloned().collect();
    assert_eq!(&Value::Array(streamed), ids);
    // A completion has both in each choice.
    let body = json!({
        "model": "npc", "prompt": [[5, 6], [7, 8, 9]], "max_tokens": 3, "temperature": 0,
        "return_token_ids": true, "ignore_eos": true,
    });
    let (_, answer) = server.post("/v1/completions", body).await;
    for (choice, prompt) in [json!([5, 6]), json!([7, 8, 9])].iter().enumerate() {
        let choice = &answer["choices"][choice];
        assert_eq!(&choice["prompt_token_ids"], prompt, "{answer}");
        assert_eq!(choice["token_ids"].as_array().map(Vec::len), Some(3), "{answer}");
    }
    let (_, plain) = server.post("/v1/chat/completions", chat_body("npc", "hi")).await;
    assert!(plain.get("prompt_token_ids").is_none(), "{plain}");
    assert!(plain["choices"][0].get("token_ids").is_none(), "{plain}");
}

#[tokio::test]
async fn usage_grows_from_chunk_to_chunk() {
    let server = Server::demo();
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["stream"] = json!(true);
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(20);
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let lines = server.stream("/v1/chat/completions", body).await.expect("a stream");
    let chunks: Vec<Value> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let counts: Vec<u64> = chunks
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().expect("usage on every chunk"))
        .collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!((counts[0], counts[counts.len() - 1]), (0, 20), "{counts:?}");
    let prompts: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["usage"]["prompt_tokens"]).collect();
    assert!(prompts.iter().all(|tokens| *tokens == prompts[0]), "{prompts:?}");
}

#[tokio::test]
async fn a_salt_keeps_prefixes_apart() {
    let server = Server::demo();
    let cached = async |salt: Value| {
        let mut body = chat_body("npc", &heldout("npc", 0));
        body["cache_salt"] = salt;
        body["max_tokens"] = json!(1);
        body["priority"] = json!(-3);
        let (status, answer) = server.post("/v1/chat/completions", body).await;
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!(cached(json!("a")).await, 0);
    assert!(cached(json!("a")).await > 0, "the same salt shares");
    assert_eq!(cached(json!("b")).await, 0);
    assert_eq!(cached(Value::Null).await, 0);
    assert!(cached(Value::Null).await > 0);
    let mut body = chat_body("npc", "hi");
    body["cache_salt"] = json!("");
    let (status, answer) = server.post("/v1/chat/completions", body).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("cache_salt")), "{answer}");
}

/// What scores prompts takes everything but the last entry, which must be of a generated token even where
/// that ends the answer at once.
#[tokio::test]
async fn there_is_a_log_probability_for_each_token_that_is_counted() {
    let server = Server::demo();
    let path = "/v1/completions";
    let body = json!({"model": "npc", "prompt": "Hello", "max_tokens": 3, "temperature": 0,
        "echo": true, "logprobs": 1, "return_token_ids": true});
    let with = |key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body
    };
    let (status, whole) = server.post(path, body.clone()).await;
    assert_eq!(status, 200, "{whole}");
    let ids = whole["choices"][0]["token_ids"].clone();
    let known = whole["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("numbers");
    for stop in 0..3 {
        let body = with("stop_token_ids", json!([ids[stop]]));
        let (_, answer) = server.post(path, body.clone()).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{answer}");
        let found = choice["logprobs"]["token_logprobs"].as_array().expect("numbers");
        assert_eq!(found.len() as u64, answer["usage"]["total_tokens"].as_u64().expect("a number"));
        assert_eq!(found[..], known[..found.len()], "{answer}");
        let mut body = body;
        body["stream"] = json!(true);
        let events = server.stream(path, body).await.expect("a stream");
        let events = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        let streamed: Vec<Value> = events
            .filter_map(|event| {
                event["choices"][0]["logprobs"]["token_logprobs"].as_array().cloned()
            })
            .flatten()
            .collect();
        assert_eq!(&streamed, found, "{stop}");
    }
}

#[tokio::test]
async fn fields_that_bound_sampling_have_their_effect() {
    let server = Server::demo();
    let ask = async |more: Value| {
        let mut body = chat_body("npc", &heldout("npc", 0));
        let more = more.as_object().expect("fields").clone();
        body.as_object_mut().expect("a body").extend(more);
        let (status, answer) = server.post("/v1/chat/completions", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let greedy = ask(json!({"max_tokens": 16})).await;
    for more in [json!({"top_k": 1}), json!({"min_p": 1.0}), json!({"top_p": 0.0001})] {
        let mut more = more;
        more["temperature"] = json!(1.9);
        more["max_completion_tokens"] = json!(16);
        more["max_tokens"] = json!(16);
        assert_eq!(content(&ask(more.clone()).await), content(&greedy), "{more}");
    }
    let at_least = ask(json!({"min_tokens": 60, "max_tokens": 60, "user": "u"})).await;
    assert_eq!(at_least["usage"]["completion_tokens"], 60);
    assert_eq!(at_least["choices"][0]["finish_reason"], "length");
    // So near to nothing that what is divided by it has no float.
    ask(json!({"repetition_penalty": 1e-38, "temperature": 1e-38, "max_tokens": 8})).await;
}
