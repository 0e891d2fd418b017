//! `/v1/embeddings`: vectors of the base and of adapters, in every form, with their receipts.

use serde_json::{Value, json};

use crate::harness::{Server, heldout};

fn floats(vector: &Value) -> Vec<f64> {
    vector.as_array().expect("numbers").iter().map(|n| n.as_f64().expect("a number")).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

async fn embed(server: &Server, body: Value) -> Value {
    let (status, answer) = server.post("/v1/embeddings", body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn every_form_of_input_gives_the_same_vectors() {
    let server = Server::demo();
    let (one, two) = (heldout("npc", 0), heldout("support", 0));
    let list = embed(&server, json!({"model": "npc", "input": [one, two], "user": "u"})).await;
    assert_eq!((list["object"].as_str(), list["model"].as_str()), (Some("list"), Some("npc")));
    let data = list["data"].as_array().expect("vectors");
    assert_eq!(data.len(), 2);
    assert_eq!((&data[1]["index"], &data[1]["object"]), (&json!(1), &json!("embedding")));
    let first = floats(&data[0]["embedding"]);
    assert!((dot(&first, &first) - 1.0).abs() < 1e-5, "not of length 1");
    assert_ne!(data[0]["embedding"], data[1]["embedding"]);
    let alone = embed(&server, json!({"model": "npc", "input": one})).await;
    assert_eq!(alone["data"][0]["embedding"], data[0]["embedding"], "company changed the bits");
    let (_, tokens) = server.post("/tokenize", json!({"prompt": one})).await;
    let ids = tokens["tokens"].clone();
    let by_ids = embed(&server, json!({"model": "npc", "input": ids})).await;
    assert_eq!(by_ids["data"][0]["embedding"], data[0]["embedding"]);
    assert_eq!(by_ids["usage"]["prompt_tokens"], tokens["count"]);
    let lists = embed(&server, json!({"model": "npc", "input": [ids, ids]})).await;
    assert_eq!(lists["data"][1]["embedding"], data[0]["embedding"]);
    // An adapter's vectors are not the base's.
    let (_, models) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let base = embed(&server, json!({"model": models["data"][0]["id"], "input": one})).await;
    assert_ne!(base["data"][0]["embedding"], data[0]["embedding"]);
}

#[tokio::test]
async fn vectors_are_cut_scaled_and_encoded_as_asked() {
    let server = Server::demo();
    let ask = async |more: Value| {
        let mut body = json!({"model": "npc", "input": "the wallet"});
        body.as_object_mut().expect("a body").extend(more.as_object().expect("fields").clone());
        server.post("/v1/embeddings", body).await
    };
    let raw = ask(json!({"normalize": false})).await.1;
    let raw = floats(&raw["data"][0]["embedding"]);
    let cut = ask(json!({"dimensions": 8})).await.1;
    let cut = floats(&cut["data"][0]["embedding"]);
    assert_eq!(cut.len(), 8);
    let length = dot(&raw[..8], &raw[..8]).sqrt();
    for (found, raw) in cut.iter().zip(&raw) {
        assert!((found - raw / length).abs() < 1e-5, "{found} is not {raw} / {length}");
    }
    let text = ask(json!({"encoding_format": "base64"})).await.1;
    let text = text["data"][0]["embedding"].as_str().expect("base64").to_owned();
    assert_eq!(text.len(), (raw.len() * 4).div_ceil(3) * 4);
    let width = raw.len();
    for (more, status, param) in [
        (json!({"dimensions": width}), 200, None),
        (json!({"dimensions": width + 1}), 400, Some("dimensions")),
        (json!({"dimensions": 0}), 400, Some("dimensions")),
        (json!({"encoding_format": "int8"}), 400, Some("encoding_format")),
        (json!({"input": [[]]}), 400, Some("input")),
        (json!({"input": []}), 400, Some("input")),
        (json!({"input": vec!["a"; 2049]}), 400, Some("input")),
        (json!({"input": [4_000_000]}), 400, Some("input")),
        (json!({"input": vec![5; 100_000]}), 400, Some("input")),
        (json!({"model": "nobody"}), 404, Some("model")),
        (json!({"model": "agent:solver"}), 400, Some("model")),
        (json!({"model": "auto"}), 200, None),
    ] {
        let (found, answer) = ask(more).await;
        assert_eq!((found, answer["error"]["param"].as_str()), (status, param), "{answer}");
    }
}

#[tokio::test]
async fn an_embedding_has_a_receipt() {
    let server = Server::demo();
    let one = embed(&server, json!({"model": "npc", "input": "hello"})).await;
    let id = one["mortise"]["receipt"].as_str().expect("an id");
    let (status, receipt) = server.get(&format!("/v1/receipts/{id}")).await;
    assert_eq!(status, 200, "{receipt}");
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(receipt["hash"], one["mortise"]["receipt_hash"]);
    assert_eq!(receipt["status"], "completed");
    assert_eq!(receipt["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert_eq!(receipt["usage"]["completion_tokens"], 0);
    let many = embed(&server, json!({"model": "npc", "input": vec!["a"; 40]})).await;
    assert_eq!(many["mortise"]["prompts"].as_array().map(Vec::len), Some(40));
}
