//! What operators do on a live server: adapters and plugins come and go, bad ones change nothing.

use std::path::Path;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Server, chat_body, content, contributors, copy_of, heldout, with_alpha};

#[tokio::test]
async fn nothing_without_the_token() {
    let server = Server::demo();
    let url = format!("{}/admin/adapters", server.admin_url);
    let without = server.client.get(&url).send().await.expect("an answer");
    assert_eq!(without.status(), 401);
    let wrong = server.client.get(&url).bearer_auth("other").send().await.expect("an answer");
    assert_eq!(wrong.status(), 401);
    let (status, _) = server.get("/admin/adapters").await;
    assert_eq!(status, 404, "the public listener has no admin API");
}

#[tokio::test]
async fn an_adapter_comes_changes_and_goes() {
    let server = Server::demo();
    let folder = tempfile::tempdir().expect("temporary folder");
    let copy = copy_of("support", folder.path());
    let body = json!({"name": "helper", "path": copy});
    let (status, first) = server.admin("POST", "/admin/adapters", body.clone()).await;
    assert_eq!(status, 200, "{first}");
    let prompt = heldout("support", 0);
    let shipped = server.chat("support", &prompt).await;
    assert_eq!(content(&server.chat("helper", &prompt).await), content(&shipped));

    with_alpha(&copy, 0.0);
    let (status, second) = server.admin("POST", "/admin/adapters", body).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first["generation"], second["generation"]);
    let (_, models) = server.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let base = models["data"][0]["id"].as_str().expect("the base").to_owned();
    let scaled_away = server.chat("helper", &prompt).await;
    assert_eq!(content(&scaled_away), content(&server.chat(&base, &prompt).await));

    let (status, _) = server.admin("DELETE", "/admin/adapters/helper", json!({})).await;
    assert_eq!(status, 200);
    let (status, gone) = server.post("/v1/chat/completions", chat_body("helper", &prompt)).await;
    assert_eq!(status, 404, "{gone}");
    let (status, _) = server.admin("DELETE", "/admin/adapters/helper", json!({})).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_bad_adapter_is_refused_with_its_reason() {
    let server = Server::demo();
    let folder = tempfile::tempdir().expect("temporary folder");
    let refused = async |path: &Path, expect: &str| {
        let body = json!({"name": "bad", "path": path});
        let (status, answer) = server.admin("POST", "/admin/adapters", body).await;
        assert_eq!(status, 400, "{answer}");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(expect), "{message}");
    };
    refused(&folder.path().join("nothing"), "adapter_config.json").await;
    let torn = copy_of("support", folder.path());
    let weights = torn.join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("written");
    refused(&torn, "adapter_model.safetensors").await;
    // Opening a pipe would wait for ever, and every other change with it.
    for (adapter, file) in [("npc", "adapter_model.safetensors"), ("contracts", "corpus.jsonl")] {
        let piped = copy_of(adapter, folder.path());
        std::fs::remove_file(piped.join(file)).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(piped.join(file)).status();
        assert!(made.expect("mkfifo runs").success());
        refused(&piped, "not a regular file").await;
    }
    let (_, models) = server.get("/v1/models").await;
    assert!(!models.contains("\"bad\""), "{models}");
}

#[tokio::test]
async fn a_bad_version_leaves_the_old_one_serving() {
    let guest = |version: &str| artifacts::guest("stamp-preprocessor", version);
    let config = format!(
        "[[plugins]]\nname = \"stamp-preprocessor\"\npath = {:?}\nconfig = {{ mode = \"respond\" }}\n",
        guest("1.0.0")
    );
    let server = Server::without_shipped_plugins(&config);
    let answer = async || content(&server.chat("npc", "Hello.").await).to_owned();
    assert_eq!(answer().await, "[pre 1.0.0]");
    // Version 9 fails its init.
    let body = json!({"path": guest("9.0.0")});
    let (status, refused) = server.admin("POST", "/admin/plugins", body).await;
    assert_eq!(status, 400, "{refused}");
    assert!(refused.to_string().contains("version 9 never starts"), "{refused}");
    assert_eq!(answer().await, "[pre 1.0.0]");
    // A file that is no component.
    let folder = tempfile::tempdir().expect("temporary folder");
    let manifest = std::fs::read_to_string(guest("2.0.0").join("plugin.toml")).expect("manifest");
    std::fs::write(folder.path().join("plugin.toml"), manifest).expect("written");
    std::fs::write(folder.path().join("plugin.wasm"), b"\0asm\x0d\0\x01\0 cut").expect("written");
    let body = json!({"path": folder.path()});
    let (status, refused) = server.admin("POST", "/admin/plugins", body).await;
    assert_eq!(status, 400, "{refused}");
    assert!(refused.to_string().contains("stamp-preprocessor"), "{refused}");
    assert_eq!(answer().await, "[pre 1.0.0]");

    let list = |output: Result<String, String>| output.unwrap_or_else(|error| panic!("{error}"));
    let path = guest("2.0.0");
    list(server.cli(&["plugin", "install", path.to_str().expect("UTF-8")]));
    assert_eq!(answer().await, "[pre 1.0.0]", "installed is not activated");
    list(server.cli(&["plugin", "activate", "stamp-preprocessor@2.0.0"]));
    assert_eq!(answer().await, "[pre 2.0.0]");
    list(server.cli(&["plugin", "rollback", "stamp-preprocessor"]));
    assert_eq!(answer().await, "[pre 1.0.0]");
    let error = server.cli(&["plugin", "activate", "stamp-preprocessor@3.0.0"]).expect_err("none");
    assert!(error.contains("3.0.0"), "{error}");
    assert!(list(server.cli(&["plugin", "list"])).contains("stamp-preprocessor"));
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_named() {
    let server = Server::without_shipped_plugins("grant_requested = false\n");
    let body = json!({"path": artifacts::plugin("closest-corpus")});
    let (status, refused) = server.admin("POST", "/admin/plugins", body).await;
    assert_eq!(status, 400, "{refused}");
    assert!(refused.to_string().contains("mortise:cap/corpus"), "{refused}");
}

#[tokio::test]
async fn a_drained_server_ends_by_itself() {
    let mut server = Server::demo();
    let (status, _) = server.get("/ready").await;
    assert_eq!(status, 200);
    let (status, answer) = server.admin("POST", "/admin/drain", json!({})).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(server.wait(), Some(0), "{}", server.log_text());
}

#[tokio::test]
async fn an_answer_is_credited_to_what_it_began_with() {
    let server = Server::demo();
    let folder = tempfile::tempdir().expect("temporary folder");
    let copy = copy_of("support", folder.path());
    let load = json!({"name": "helper", "path": copy});
    let (status, first) = server.admin("POST", "/admin/adapters", load.clone()).await;
    assert_eq!(status, 200, "{first}");
    let mut body = chat_body("helper", &heldout("support", 0));
    body["max_tokens"] = json!(300);
    body["ignore_eos"] = json!(true);
    body["stream"] = json!(true);
    body["mortise"] = json!({"attribution": true});
    let request = server.client.post(format!("{}/v1/chat/completions", server.url));
    let mut stream = request.json(&body).send().await.expect("a stream").bytes_stream();
    let mut text = stream.next().await.expect("an event").expect("bytes").to_vec();

    // The same name, other weights, and nobody's name as it was.
    let corpus = copy.join("corpus.jsonl");
    let renamed = std::fs::read_to_string(&corpus).expect("a corpus");
    let renamed = renamed.replace("\"contributor\": \"", "\"contributor\": \"not-");
    assert!(renamed.contains("not-"));
    std::fs::write(&corpus, renamed).expect("written");
    with_alpha(&copy, 0.5);
    let (status, second) = server.admin("POST", "/admin/adapters", load).await;
    assert_eq!(status, 200, "{second}");
    while let Some(bytes) = stream.next().await {
        text.extend_from_slice(&bytes.expect("the stream goes on"));
    }

    let text = String::from_utf8(text).expect("UTF-8");
    let events: Vec<&str> = text.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).collect();
    let last: Value = serde_json::from_str(events[events.len() - 2]).expect("JSON");
    let shares = last["mortise"]["attribution"]["shares"].as_array().expect("shares").clone();
    assert!(!shares.is_empty(), "{last}");
    let names = contributors("support");
    let of_the_first = |share: &Value| names.iter().any(|name| share["contributor"] == **name);
    assert!(shares.iter().all(of_the_first), "{shares:?}");
    let path = format!("/v1/receipts/{}", last["mortise"]["receipt"].as_str().expect("an id"));
    let (_, receipt) = server.get(&path).await;
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(receipt["adapter"]["generation"], first["generation"]);
    assert_eq!(receipt["corpus_digest"], first["corpus"]["digest"]);
    assert_ne!(first["corpus"]["digest"], second["corpus"]["digest"]);
}
