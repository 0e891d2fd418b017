//! The admin API over a real socket: who gets in, what is refused and how, what a change leaves.

use std::path::Path;

use lora::ModelShape;
use pipeline::CorpusStore;
use plugin_host::{Capabilities, HostConfig};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenization::Tokenizer;

use super::*;
use crate::assemble::adapters::AdapterParts;
use crate::assemble::token;
use crate::config::Settings;
use crate::serve::listener::Listener;

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "model":
    {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

struct Server {
    url: String,
    token: String,
    drain: Arc<Notify>,
    http: reqwest::Client,
    dir: TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("tokenizer.json"), TOKENIZER).expect("written");
        let (token, path) = token::load(None, dir.path()).expect("a token");
        let tokenizer = Tokenizer::from_dir(dir.path()).expect("a tokenizer");
        let adapters = Adapters::new(AdapterParts {
            shape: ModelShape::default(),
            corpora: Arc::new(CorpusStore::new(dir.path().join("corpus"), Arc::new(tokenizer))),
            base_name: "tiny".to_owned(),
            roots: vec![dir.path().join("roots")],
            limits: Settings::default().limits.resolve().expect("defaults"),
            sources: None,
        });
        let adapters = Arc::new(adapters.expect("threads"));
        let config = HostConfig { instances_max: 4, ..HostConfig::default() };
        let plugins = PluginHost::new(config, Capabilities::default()).expect("a host");
        let drain = Arc::new(Notify::new());
        let limits = HttpLimits { body_bytes_max: 256, ..HttpLimits::default() };
        let token = Arc::new(token);
        let usage = UsageSource::default();
        let state =
            AdminState { adapters, plugins, usage, token, limits, drain: Arc::clone(&drain) };
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(address, 8).await.expect("a free port");
        let url = format!("http://{}", listener.address().expect("bound"));
        listener.serve(router(state));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { url, token: token::read(&path).expect("kept"), drain, http, dir }
    }

    /// Status and JSON of a call with the token.
    async fn call(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let request = request.bearer_auth(&self.token).body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Makes a call (method, path, body) that must be refused.
    async fn refused(&self, (method, path, body): (Method, &str, &str), status: u16, part: &str) {
        let (got, answer) = self.call(method, path, body).await;
        assert_eq!(got, status, "{path} {body}: {answer}");
        let error = &answer["error"];
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(part), "{message} does not say {part}");
        for key in ["type", "param", "code"] {
            assert!(error.get(key).is_some(), "no {key}: {answer}");
        }
    }
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let server = Server::start().await;
    let good = &server.token;
    for (header, status) in [
        (None, 401),
        (Some(String::new()), 401),
        (Some(good.clone()), 401),
        (Some(format!("Basic {good}")), 401),
        (Some("Bearer ".to_owned()), 401),
        (Some(format!("Bearer {}", &good[1..])), 401),
        (Some(format!("Bearer {good}0")), 401),
        (Some(format!("Bearer {good}")), 200),
        (Some(format!("bearer {good}")), 200),
    ] {
        let mut request = server.http.get(format!("{}/admin/health", server.url));
        if let Some(value) = &header {
            request = request.header("authorization", value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{header:?}");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"].is_object(), status == 401, "{body}");
    }
    // What there is is not told to strangers.
    let unknown = server.http.get(format!("{}/admin/none", server.url)).send().await;
    assert_eq!(unknown.expect("an answer").status(), 401);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_reason() {
    let server = Server::start().await;
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    server.refused((get.clone(), "/admin/none", ""), 404, "/admin/none").await;
    server.refused((get.clone(), "/admin/drain", ""), 405, "GET").await;
    let adapters = "/admin/adapters";
    server.refused((post.clone(), adapters, ""), 400, "EOF while parsing").await;
    server
        .refused((post.clone(), adapters, "{\"name\": \"a\"}"), 400, "missing field `path`")
        .await;
    let unknown = r#"{"name": "a", "path": "p", "rank": 1}"#;
    server.refused((post.clone(), adapters, unknown), 400, "unknown field `rank`").await;
    server.refused((post.clone(), adapters, &" ".repeat(257)), 413, "256 bytes").await;
    for name in ["tiny", "auto", "agent:x", "", "a\\nb"] {
        let body = format!(r#"{{"name": "{name}", "path": "/none"}}"#);
        server.refused((post.clone(), adapters, &body), 400, "can't be called").await;
    }
    let missing = json!({"name": "a", "path": server.dir.path().join("none")}).to_string();
    server.refused((post.clone(), adapters, &missing), 400, "none/adapter_config.json").await;
    let address = r#"{"name": "a", "path": "hf://organisation/repository"}"#;
    server.refused((post.clone(), adapters, address), 400, "not below any of the sources").await;
    let address = r#"{"name": "a", "path": "file:///etc"}"#;
    server.refused((post.clone(), adapters, address), 400, "is no place for adapters").await;
    server.refused((delete, "/admin/adapters/a%2Fb", ""), 404, "a/b").await;
    let plugins = "/admin/plugins";
    server.refused((post.clone(), plugins, &missing), 400, "unknown field `name`").await;
    let missing = json!({"path": server.dir.path().join("none")}).to_string();
    server.refused((post.clone(), plugins, &missing), 400, "none/plugin.toml").await;
    for (act, body) in [("activate", ""), ("activate", "{}"), ("rollback", ""), ("deactivate", "")]
    {
        let path = format!("/admin/plugins/mask/{act}");
        server.refused((post.clone(), &path, body), 404, "no plugin is called mask").await;
    }
    let body = "{\"release\": 1}";
    let activate = "/admin/plugins/mask/activate";
    server.refused((post, activate, body), 400, "unknown field `release`").await;
}

/// A postprocessor's folder whose component is not one.
fn broken_plugin(dir: &Path) {
    std::fs::create_dir_all(dir).expect("folder");
    let manifest = "name = \"mask\"\nversion = \"0.1.0\"\nkind = \"postprocessor\"\n";
    std::fs::write(dir.join("plugin.toml"), manifest).expect("written");
    std::fs::write(dir.join("plugin.wasm"), "not wasm").expect("written");
}

#[tokio::test]
async fn a_refused_plugin_leaves_nothing_behind() {
    let server = Server::start().await;
    let dir = server.dir.path().join("mask");
    broken_plugin(&dir);
    let body = json!({"path": dir}).to_string();
    let post = Method::POST;
    server.refused((post, "/admin/plugins", &body), 400, "mask@0.1.0 does not compile").await;
    let (status, list) = server.call(Method::GET, "/admin/plugins", "").await;
    assert_eq!((status, list), (200, json!({"plugins": []})));
    let (status, list) = server.call(Method::GET, "/admin/adapters", "").await;
    assert_eq!((status, list), (200, json!({"adapters": []})));
}

#[tokio::test]
async fn a_drain_is_acknowledged_and_told() {
    let server = Server::start().await;
    let (status, _) = server.call(Method::POST, "/admin/drain", "").await;
    assert_eq!(status, 202);
    server.drain.notified().await;
}
