//! A server process on free ports, and the few calls every test makes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The adapters that the demo ships.
pub(crate) const ADAPTERS: [&str; 4] = ["contracts", "npc", "support", "wallet-risk"];
/// The product's binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mortise-under-test");
const TOKEN: &str = "test-token";
/// Long enough for a loaded machine of two cores; a hang is still a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// How a test wants its server.
pub(crate) struct Setup {
    /// Where receipts, caches and the admin token live; kept if the test restarts the server. A `model`
    /// and `adapters` in it are served instead of the demo's; a `model.gguf` instead of its model.
    pub(crate) data: PathBuf,
    /// The configuration file.
    pub(crate) config: String,
    /// Whether the shipped plugins are installed.
    pub(crate) plugins: bool,
    /// The folder of adapters; `None` is the demo's.
    pub(crate) adapters: Option<PathBuf>,
}

/// A running server. Dropping it kills the process.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) token_file: PathBuf,
    pub(crate) client: reqwest::Client,
    log: PathBuf,
    _data: Option<TempDir>,
}

impl Server {
    /// The demo's model, adapters and plugins, with default limits.
    pub(crate) fn demo() -> Self {
        Self::with_config("")
    }

    /// The demo with more configuration, as TOML.
    pub(crate) fn with_config(config: &str) -> Self {
        Self::on_new_data(config, true, None)
    }

    /// The demo's model and adapters, and only the plugins that the configuration names.
    pub(crate) fn without_shipped_plugins(config: &str) -> Self {
        Self::on_new_data(config, false, None)
    }

    /// The demo's model without plugins, over another folder of adapters.
    pub(crate) fn over_adapters(folder: &Path, config: &str) -> Self {
        Self::on_new_data(config, false, Some(folder.to_owned()))
    }

    fn on_new_data(config: &str, plugins: bool, adapters: Option<PathBuf>) -> Self {
        let data = tempfile::tempdir().expect("temporary folder");
        let config = config.to_owned();
        let setup = Setup { data: data.path().to_owned(), config, plugins, adapters };
        let mut server = Self::start(&setup);
        server._data = Some(data);
        server
    }

    /// Starts the binary and waits for its two lines.
    pub(crate) fn start(setup: &Setup) -> Self {
        let token_file = setup.data.join("token");
        std::fs::write(&token_file, format!("{TOKEN}\n")).expect("token file");
        let config_file = setup.data.join("mortise.toml");
        std::fs::write(&config_file, &setup.config).expect("configuration file");
        let log = setup.data.join("stderr.log");
        let tiny = root().join("examples/tiny");
        let base = if setup.data.join("model").is_dir() { &setup.data } else { &tiny };
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        // Alone and by a relative path, as one has it who has just fetched one.
        let gguf = Path::new("model.gguf");
        let is_gguf = setup.data.join(gguf).is_file();
        let model = if is_gguf { gguf.to_owned() } else { base.join("model") };
        let mut command = Command::new(BINARY);
        command.arg("serve").current_dir(&setup.data);
        if setup.plugins {
            command.arg("--plugin-dir").arg(artifacts::PLUGINS_DIR);
        }
        let mut child = command
            .arg("--config")
            .arg(&config_file)
            .arg("--model")
            .arg(model)
            .arg("--adapter-dir")
            .arg(setup.adapters.clone().unwrap_or_else(|| base.join("adapters")))
            .arg("--data-dir")
            .arg(&setup.data)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--threads", "2"])
            .arg("--admin-token-file")
            .arg(&token_file)
            .args(setup.plugins.then_some("--grant-requested"))
            .stdout(Stdio::piped())
            .stderr(stderr.expect("log file"))
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut address = |prefix: &str| loop {
            let Some(Ok(line)) = lines.next() else {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the server ended before `{prefix}`:\n{log}");
            };
            if let Some(found) = line.strip_prefix(prefix) {
                break found.to_owned();
            }
        };
        let url = address("listening on ");
        let admin_url = address("admin on ");
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("client");
        Self { child, url, admin_url, token_file, client, log, _data: None }
    }

    /// What the process wrote to stderr.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Waits for the process; its exit code, or `None` if a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("the process ends").code()
    }

    /// POST to the public listener: status and JSON.
    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).json(&body);
        answer(request.send().await.expect("an answer")).await
    }

    /// GET from the public listener: status and text.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let sent = self.client.get(format!("{}{path}", self.url)).send().await;
        let response = sent.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// A greedy chat of one user turn.
    pub(crate) async fn chat(&self, model: &str, content: &str) -> Value {
        let (status, body) = self.post("/v1/chat/completions", chat_body(model, content)).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Streams a request; the data of each event, `[DONE]` included.
    pub(crate) async fn stream(&self, path: &str, body: Value) -> Result<Vec<String>, String> {
        let request = self.client.post(format!("{}{path}", self.url)).json(&body);
        let response = request.send().await.map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!(
                "{}: {}",
                response.status(),
                response.text().await.unwrap_or_default()
            ));
        }
        let mut bytes = response.bytes_stream();
        let mut text = Vec::new();
        while let Some(chunk) = bytes.next().await {
            text.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
        }
        let text = String::from_utf8(text).map_err(|error| error.to_string())?;
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        Ok(events.map(str::to_owned).collect())
    }

    /// The binary as an operator runs it beside the server: standard output if it succeeds, else
    /// standard error.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(BINARY)
            .args(arguments)
            .args(["--admin", &self.admin_url, "--token-file"])
            .arg(&self.token_file)
            .output()
            .expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A call to the admin listener with its token.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let request = self
            .client
            .request(method, format!("{}{path}", self.admin_url))
            .bearer_auth(TOKEN)
            .json(&body);
        answer(request.send().await.expect("an answer")).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A greedy chat of one user turn, at most 64 tokens.
pub(crate) fn chat_body(model: &str, content: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 64,
    })
}

/// Text of the first choice of a chat answer.
pub(crate) fn content(body: &Value) -> &str {
    body["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no text: {body}"))
}

/// The first held-out prompt of a domain.
pub(crate) fn heldout(domain: &str, index: usize) -> String {
    let path = root().join("examples/tiny/heldout").join(format!("{domain}.jsonl"));
    let text = std::fs::read_to_string(&path).expect("held-out prompts");
    let line = text.lines().nth(index).expect("a prompt at that index");
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    line["messages"][0]["content"].as_str().expect("a prompt").to_owned()
}

/// Contributors of a domain's corpus.
pub(crate) fn contributors(domain: &str) -> Vec<String> {
    let path = root().join("examples/tiny/adapters").join(domain).join("corpus.jsonl");
    let text = std::fs::read_to_string(&path).expect("a corpus");
    let name = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        line["contributor"].as_str().expect("a contributor").to_owned()
    };
    let mut names: Vec<String> = text.lines().map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// The interpreter with the client packages, which `make test` sets up.
pub(crate) fn python() -> PathBuf {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: `make test` makes it", python.display());
    python
}

/// Sum of the samples of a metric, labels aside.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let mut samples = text.lines().filter(of).peekable();
    assert!(samples.peek().is_some(), "no metric {name}:\n{text}");
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
    samples.map(|line| value(line).unwrap_or_else(|| panic!("no number: {line}"))).sum()
}

/// A copy of a shipped adapter that can be changed.
pub(crate) fn copy_of(adapter: &str, to: &Path) -> PathBuf {
    let from = root().join("examples/tiny/adapters").join(adapter);
    let target = to.join(adapter);
    std::fs::create_dir_all(&target).expect("folder");
    for entry in std::fs::read_dir(from).expect("the adapter") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), target.join(entry.file_name())).expect("copied");
    }
    target
}

/// Changes the scale of an adapter, and so its identity.
pub(crate) fn with_alpha(adapter: &Path, factor: f64) {
    let path = adapter.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["lora_alpha"] = json!(config["lora_alpha"].as_f64().expect("a number") * factor);
    std::fs::write(&path, config.to_string()).expect("written");
}

/// SHA-256 in hex, as an operator makes it.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    child.stdin.take().expect("piped").write_all(bytes).expect("written");
    let output = child.wait_with_output().expect("sha256sum ends");
    let text = String::from_utf8(output.stdout).expect("hex");
    text.split_whitespace().next().expect("hex").to_owned()
}
