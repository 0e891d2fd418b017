//! What a client may send and what it is told, at and beyond every limit.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, heldout, metric, sha256_of};

/// Sends raw bytes as JSON: status, `error.param`, `error.code`, `error.message`.
async fn refused(server: &Server, path: &str, body: &str) -> (u16, Value) {
    let request = server.client.post(format!("{}{path}", server.url)).body(body.to_owned());
    let request = request.header("content-type", "application/json");
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    (status, body["error"].clone())
}

#[tokio::test]
async fn a_bad_request_is_told_what_and_where() {
    let server = Server::demo();
    let chat = "/v1/chat/completions";
    let (status, error) = refused(&server, chat, "{\"model\": \"npc\",\n \"messages\": 4}").await;
    assert_eq!((status, error["param"].as_str()), (400, Some("messages")), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("line 2")), "{error}");
    let (status, error) = refused(&server, chat, "{\"model\": \"npc\"").await;
    assert_eq!((status, error["code"].as_str()), (400, Some("invalid_json")), "{error}");
    let (status, error) = refused(&server, "/v1/nothing", "{}").await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_found")), "{error}");
    let (status, text) = server.get(chat).await;
    assert_eq!(status, 405, "{text}");
    for path in ["/v1/models/%ff", "/v1/receipts/%c3%28"] {
        let (status, text) = server.get(path).await;
        let body: Value = serde_json::from_str(&text).expect("JSON");
        let message = body["error"]["message"].as_str();
        assert_eq!((status, message.is_some_and(|m| m.contains("UTF-8"))), (400, true), "{text}");
    }
    let plain = server.client.post(format!("{}{chat}", server.url)).body("{}");
    let plain = plain.header("content-type", "text/plain").send().await.expect("an answer");
    assert_eq!(plain.status(), 415);
    let (status, error) = refused(&server, "/detokenize", "{\"tokens\": [0, 4294967295]}").await;
    assert_eq!((status, error["param"].as_str()), (400, Some("tokens")), "{error}");
    // After all of that the server still answers.
    assert!(!content(&server.chat("npc", &heldout("npc", 0)).await).is_empty());
}

#[tokio::test]
async fn bodies_and_prompts_at_and_beyond_their_limits() {
    let server = Server::with_config("[limits]\nbody_bytes_max = 4096\nprompts_max = 2\n");
    let body = |bytes: usize| {
        let mut body = json!({"model": "npc", "prompt": "Hi", "max_tokens": 1}).to_string();
        body.push_str(&" ".repeat(bytes - body.len()));
        body
    };
    for bytes in [4095, 4096] {
        let (status, error) = refused(&server, "/v1/completions", &body(bytes)).await;
        assert_eq!(status, 200, "{bytes} bytes: {error}");
    }
    let (status, error) = refused(&server, "/v1/completions", &body(4097)).await;
    assert_eq!((status, error["code"].as_str()), (413, Some("request_too_large")), "{error}");
    let prompts =
        |count: usize| json!({"model": "npc", "prompt": vec!["Hello"; count], "max_tokens": 1});
    let (status, answer) = server.post("/v1/completions", prompts(2)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["mortise"]["prompts"].as_array().map(Vec::len), Some(2), "{answer}");
    let (status, answer) = server.post("/v1/completions", prompts(3)).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn prompts_at_and_beyond_the_context() {
    let server = Server::with_config("[limits]\ncontext_tokens_max = 64\n");
    let ask = async |prompt: usize, max_tokens: u32, echo: bool| {
        let body = json!({
            "model": "npc", "prompt": vec![5; prompt], "max_tokens": max_tokens, "echo": echo,
            "logprobs": if echo { json!(0) } else { Value::Null }, "ignore_eos": true,
        });
        server.post("/v1/completions", body).await
    };
    for (prompt, max_tokens, echo) in [(63, 1, false), (1, 63, false), (64, 0, true), (63, 1, true)]
    {
        let (status, answer) = ask(prompt, max_tokens, echo).await;
        assert_eq!(status, 200, "{prompt} + {max_tokens}: {answer}");
        assert_eq!(answer["usage"]["total_tokens"], 64);
    }
    for (prompt, max_tokens, echo) in [(64, 1, false), (1, 64, false), (65, 0, true), (65, 1, true)]
    {
        let (status, answer) = ask(prompt, max_tokens, echo).await;
        assert_eq!(status, 400, "{prompt} + {max_tokens}: {answer}");
        assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");
        assert_eq!(answer["error"]["param"], "prompt", "{answer}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let limits = "[limits]\nsequences_max = 1\nqueue_max = 1\nretry_after_s = 7\n";
    let server = Server::with_config(limits);
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(200);
    let ask = || async {
        let request = server.client.post(format!("{}/v1/chat/completions", server.url));
        request.json(&body).send().await.expect("an answer")
    };
    let answers = futures_util::future::join_all((0..8).map(|_| ask())).await;
    let full: Vec<_> = answers.iter().filter(|answer| answer.status() == 429).collect();
    let served = answers.iter().filter(|answer| answer.status() == 200).count();
    assert!(!full.is_empty() && served >= 1, "{served} of 8 were served");
    assert_eq!(full.len() + served, 8);
    assert!(full.iter().all(|answer| answer.headers()["retry-after"] == "7"));
    assert_eq!(ask().await.status(), 200, "the queue is free again");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot() {
    let server = Server::with_config("[limits]\nsequences_max = 1\n");
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(700);
    body["stream"] = json!(true);
    let request = server.client.post(format!("{}/v1/chat/completions", server.url));
    let mut stream = request.json(&body).send().await.expect("a stream").bytes_stream();
    let first = stream.next().await.expect("an event").expect("bytes");
    assert!(first.starts_with(b"data: "));
    drop(stream);
    // The only slot is free again long before 700 tokens, or this request waits for all of them.
    let mut quick = chat_body("npc", &heldout("npc", 1));
    quick["max_tokens"] = json!(1);
    let (status, answer) = server.post("/v1/chat/completions", quick).await;
    assert_eq!(status, 200, "{answer}");
    wait_until_idle(&server).await;
    let (_, metrics) = server.get("/metrics").await;
    let generated = metric(&metrics, "vllm:generation_tokens_total");
    assert!(generated < 700.0, "{generated} tokens were generated for a client that had left");
    assert_eq!(metric(&metrics, "vllm:kv_cache_usage_perc"), 0.0, "blocks are still in use");
}

/// Polls `/metrics` until nothing runs.
async fn wait_until_idle(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let (_, metrics) = server.get("/metrics").await;
        if metric(&metrics, "vllm:num_requests_running") == 0.0 {
            return;
        }
    }
    panic!("a request still runs after a minute");
}

#[tokio::test]
async fn receipts_are_for_those_who_asked() {
    let keys = tempfile::NamedTempFile::new().expect("temporary file");
    let (one, two) = (sha256_of(b"one"), sha256_of(b"two"));
    std::fs::write(keys.path(), format!("{one} acme\n{two} zeta # other\n")).expect("keys");
    let server = Server::with_config(&format!("api_keys_file = {:?}\n", keys.path()));
    let call = |key: &'static str, path: String| {
        let request = server.client.get(format!("{}{path}", server.url));
        async move { request.bearer_auth(key).send().await.expect("an answer") }
    };
    let request = server.client.post(format!("{}/v1/chat/completions", server.url));
    let request = request.bearer_auth("one").json(&chat_body("npc", &heldout("npc", 0)));
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let path = format!("/v1/receipts/{}", answer["id"].as_str().expect("an id"));
    let own = call("one", path.clone()).await;
    assert_eq!(own.status(), 200);
    let receipt: Value = own.json().await.expect("JSON");
    assert_eq!(receipt["tenant"], "acme");
    assert_eq!(receipt["hash"], answer["mortise"]["receipt_hash"]);
    assert_eq!(call("two", path.clone()).await.status(), 404);
    assert_eq!(call("three", path.clone()).await.status(), 401);
    let (status, _) = server.get(&path).await;
    assert_eq!(status, 401);
    let (status, _) = server.get("/health").await;
    assert_eq!(status, 200, "a probe needs no key");
}

#[tokio::test]
async fn tokenize_and_detokenize_are_inverse() {
    let server = Server::demo();
    for text in ["The wallet 0xAB12 is — risky.\n", "", "🦀 crab"] {
        let body = json!({"prompt": text, "add_special_tokens": false});
        let (status, tokens) = server.post("/tokenize", body).await;
        assert_eq!(status, 200, "{tokens}");
        assert_eq!(
            tokens["count"].as_u64(),
            tokens["tokens"].as_array().map(|ids| ids.len() as u64)
        );
        let (status, back) = server.post("/detokenize", json!({"tokens": tokens["tokens"]})).await;
        assert_eq!(status, 200, "{back}");
        assert_eq!(back["prompt"], text);
    }
    let messages =
        json!({"messages": [{"role": "user", "content": "hi"}], "return_token_strs": true});
    let (status, tokens) = server.post("/tokenize", messages).await;
    assert_eq!(status, 200, "{tokens}");
    let strings = tokens["token_strs"].as_array().expect("strings");
    assert!(
        strings.iter().any(|text| text.as_str().is_some_and(|text| text.contains("assistant")))
    );
}

#[tokio::test]
async fn a_server_told_to_stop_finishes_what_it_began() {
    let mut server = Server::demo();
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["ignore_eos"] = json!(true);
    body["max_tokens"] = json!(400);
    body["stream"] = json!(true);
    let request = server.client.post(format!("{}/v1/chat/completions", server.url));
    let mut stream = request.json(&body).send().await.expect("a stream").bytes_stream();
    let mut text = stream.next().await.expect("an event").expect("bytes").to_vec();
    server.signal("TERM");
    while let Some(bytes) = stream.next().await {
        text.extend_from_slice(&bytes.expect("the stream goes on"));
    }
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert_eq!(server.wait(), Some(0), "{}", server.log_text());
}
