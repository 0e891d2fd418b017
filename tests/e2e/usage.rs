//! What was used is entered once, by adapter and tenant, outlives the adapter, and is what clients were told;
//! and what is measured of requests adds up.

use serde_json::{Value, json};

use crate::harness::{Server, chat_body, heldout, metric};

const CHAT: &str = "/v1/chat/completions";

async fn usage(server: &Server) -> Value {
    let (status, usage) = server.admin("GET", "/admin/usage", json!(null)).await;
    assert_eq!(status, 200, "{usage}");
    usage
}

fn row<'a>(usage: &'a Value, adapter: &str) -> &'a Value {
    let rows = usage["adapters"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["name"] == adapter)
        .unwrap_or_else(|| panic!("no {adapter}: {usage}"))
}

/// Sums of what answers said: prompt tokens, cached, generated.
fn told(answers: &[Value]) -> [u64; 3] {
    answers.iter().fold([0; 3], |[prompt, cached, generated], answer| {
        let count = |value: &Value| value.as_u64().expect("a count");
        let of = &answer["usage"];
        [
            prompt + count(&of["prompt_tokens"]),
            cached + count(&of["prompt_tokens_details"]["cached_tokens"]),
            generated + count(&of["completion_tokens"]),
        ]
    })
}

fn entered(row: &Value) -> [u64; 3] {
    ["prompt_tokens", "cached_tokens", "generated_tokens"]
        .map(|key| row[key].as_u64().unwrap_or_else(|| panic!("no {key}: {row}")))
}

#[tokio::test]
async fn what_was_used_is_entered_by_adapter() {
    let server = Server::demo();
    let prompt = heldout("npc", 0);
    let mut answers = Vec::new();
    for n in [1, 3] {
        let mut body = chat_body("npc", &prompt);
        body["n"] = json!(n);
        let (status, answer) = server.post(CHAT, body).await;
        assert_eq!(status, 200, "{answer}");
        answers.push(answer);
    }
    let base = server.chat("model", &prompt).await;
    let blend = server.chat("npc:0.5+support:0.5", &prompt).await;
    let refused = server.post(CHAT, chat_body("nobody \u{1b}[2J", &prompt)).await;
    assert_eq!(refused.0, 404);
    let after = usage(&server).await;
    let npc = row(&after, "npc");
    assert_eq!(entered(&after["base"]), told(std::slice::from_ref(&base)));
    assert_eq!(entered(row(&after, "support")), told(std::slice::from_ref(&blend)));
    answers.push(blend);
    assert_eq!(entered(npc), told(&answers));
    answers.push(base);
    assert_eq!(entered(&after["total"]), told(&answers));
    assert_eq!((&npc["requests"], &npc["blended_requests"]), (&json!(3), &json!(1)));
    assert_eq!(npc["tenants"][0]["tenant"], "default");
    assert!(npc["loads"].as_u64() >= Some(1) && npc["loaded_bytes"].as_u64() > Some(0), "{npc}");
    let compute = |row: &Value| row["compute_seconds"].as_f64().expect("seconds");
    assert!(compute(npc) > 0.0 && compute(&after["total"]) > compute(&after["base"]), "{after}");
    assert_eq!(
        after["adapters"].as_array().map(Vec::len),
        Some(2),
        "names of clients make no rows"
    );
    // Rows outlive their adapters.
    assert_eq!(server.admin("DELETE", "/admin/adapters/npc", json!(null)).await.0, 200);
    assert_eq!(row(&usage(&server).await, "npc"), npc);
    let (status, _) = server.get("/admin/usage").await;
    assert_eq!(status, 404, "bills are no business of the public");
}

#[tokio::test]
async fn a_client_that_leaves_and_an_embedding_are_entered_too() {
    let server = Server::without_shipped_plugins("");
    let (status, answer) =
        server.post("/v1/embeddings", json!({"model": "npc", "input": "the wallet"})).await;
    assert_eq!(status, 200, "{answer}");
    let after = usage(&server).await;
    assert_eq!(row(&after, "npc")["prompt_tokens"], answer["usage"]["prompt_tokens"]);
    let mut body = chat_body("support", &heldout("support", 0));
    (body["ignore_eos"], body["max_tokens"], body["stream"]) =
        (json!(true), json!(500), json!(true));
    let request = server.client.post(format!("{}{CHAT}", server.url)).json(&body);
    let mut response = request.send().await.expect("a stream");
    response.chunk().await.expect("bytes").expect("a chunk");
    drop(response);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let now = usage(&server).await;
        let rows = now["adapters"].as_array().expect("rows");
        if let Some(row) = rows.iter().find(|row| row["name"] == "support" && row["requests"] == 1)
        {
            let [prompt, _, generated] = entered(row);
            assert!(prompt > 0 && generated < 500, "{row}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "nothing was entered: {now}");
    }
}

#[tokio::test]
async fn phases_of_requests_add_up() {
    let server = Server::without_shipped_plugins("");
    for adapter in ["npc", "support"] {
        server.chat(adapter, &heldout(adapter, 0)).await;
    }
    let (_, metrics) = server.get("/metrics").await;
    let [queue, prefill, decode, inference, all] = [
        "request_queue_time",
        "request_prefill_time",
        "request_decode_time",
        "request_inference_time",
        "e2e_request_latency",
    ]
    .map(|name| {
        assert_eq!(metric(&metrics, &format!("vllm:{name}_seconds_count")), 2.0, "{name}");
        metric(&metrics, &format!("vllm:{name}_seconds_sum"))
    });
    assert!(prefill > 0.0 && decode > 0.0, "{metrics}");
    assert!((prefill + decode - inference).abs() < 1e-3, "{prefill} + {decode} is not {inference}");
    assert!(queue + inference <= all + 1e-3, "{queue} + {inference} is over {all}");
    let info: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("vllm:lora_requests_info{")).collect();
    assert_eq!(info.len(), 1, "{info:?}");
    assert!(info[0].contains("running_lora_adapters=\"\""), "{info:?}");
}
