//! Guests that loop, hoard, trap or flood in one request: that request fails by the plugin's name, and
//! those beside it answer as if nothing had happened. Every other kind of hostility is tested where
//! it is contained, in `host/plugin-host/tests/hostile`.

use serde_json::{Value, json};

use crate::harness::{ADAPTERS, Server, chat_body, content, heldout, metric, root};

/// A server with both hostile guests under a policy.
fn server(on_failure: &str) -> Server {
    let mut config = String::new();
    for kind in ["preprocessor", "postprocessor"] {
        let name = format!("hostile-{kind}");
        let path = artifacts::guest(&name, "1.0.0");
        config.push_str(&format!(
            "[[plugins]]\nname = {name:?}\npath = {path:?}\non_failure = {on_failure:?}\n"
        ));
    }
    Server::without_shipped_plugins(&config)
}

/// An adapter called `name`, so that the postprocessor knows what to do.
async fn alias(server: &Server, name: &str) {
    let path = root().join("examples/tiny/adapters/npc");
    let (status, answer) =
        server.admin("POST", "/admin/adapters", json!({"name": name, "path": path})).await;
    assert_eq!(status, 200, "{answer}");
}

/// A chat that is long enough for the fault to fall into its middle.
fn long_chat(model: &str) -> Value {
    let mut body = chat_body(model, &heldout("npc", 0));
    body["ignore_eos"] = json!(true);
    body
}

/// What other requests answer, which must not change.
async fn bystanders(server: &Server) -> Vec<String> {
    let ask = |adapter: &'static str| async move {
        content(&server.chat(adapter, &heldout(adapter, 5)).await).to_owned()
    };
    futures_util::future::join_all(ADAPTERS.map(ask)).await
}

#[tokio::test]
async fn a_hostile_preprocessor_fails_its_request_alone() {
    let server = server("reject");
    let calm = bystanders(&server).await;
    for (trigger, expect) in
        [("<loop>", "deadline"), ("<grow>", "memory"), ("<trap>", "trapped"), ("<flood>", "limit")]
    {
        let hostile = server.post("/v1/chat/completions", chat_body("npc", trigger));
        let ((status, answer), beside) = futures_util::join!(hostile, bystanders(&server));
        assert_eq!(beside, calm, "{trigger} disturbed others");
        assert_eq!(status, 502, "{trigger}: {answer}");
        assert_eq!(answer["error"]["code"], "plugin_failed", "{answer}");
        let message = answer["error"]["message"].as_str().expect("a message").to_lowercase();
        assert!(message.contains("hostile-preprocessor"), "{message}");
        assert!(message.contains(expect), "{trigger}: {message}");
    }
    let (_, metrics) = server.get("/metrics").await;
    assert_eq!(metric(&metrics, "vllm:num_requests_running"), 0.0);
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_an_error_and_frees_its_slot() {
    let server = server("reject");
    let calm = bystanders(&server).await;
    for trigger in ["loop", "trap", "flood"] {
        alias(&server, trigger).await;
        let mut body = long_chat(trigger);
        body["stream"] = json!(true);
        let hostile = server.stream("/v1/chat/completions", body);
        let (events, beside) = futures_util::join!(hostile, bystanders(&server));
        assert_eq!(beside, calm, "{trigger} disturbed others");
        let events = events.expect("a stream that begins");
        let deltas = events.iter().filter(|event| event.contains("\"content\":\"")).count();
        assert!(deltas > 2, "nothing came before the fault: {events:?}");
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let error: Value = serde_json::from_str(&events[events.len() - 2]).expect("JSON");
        let message = error["error"]["message"].as_str().unwrap_or_else(|| panic!("{events:?}"));
        assert!(message.contains("hostile-postprocessor"), "{message}");
    }
    let (_, metrics) = server.get("/metrics").await;
    assert_eq!(metric(&metrics, "vllm:kv_cache_usage_perc"), 0.0);
}

#[tokio::test]
async fn a_bypassed_fault_is_in_the_receipt_and_counted() {
    let server = server("bypass");
    alias(&server, "trap").await;
    let mut body = long_chat("trap");
    body["messages"][0]["content"] = json!("Well met. <trap>");
    let (status, answer) = server.post("/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 64, "{answer}");
    let path = format!("/v1/receipts/{}", answer["mortise"]["receipt"].as_str().expect("an id"));
    let (status, receipt) = server.get(&path).await;
    assert_eq!(status, 200, "{receipt}");
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    let plugins = receipt["plugins"].as_array().expect("plugins");
    for kind in ["preprocessor", "postprocessor"] {
        let name = format!("hostile-{kind}");
        let plugin = plugins.iter().find(|plugin| plugin["name"] == *name).expect("in the receipt");
        assert_eq!(plugin["bypassed"], true, "{receipt}");
        assert!(
            plugin["fault"].as_str().is_some_and(|fault| fault.contains("trapped")),
            "{plugin}"
        );
    }
    let (_, plugins) = server.admin("GET", "/admin/plugins", json!({})).await;
    assert!(plugins.to_string().contains("\"faults\":1"), "{plugins}");
}
