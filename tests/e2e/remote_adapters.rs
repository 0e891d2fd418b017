//! Adapters that lie on a web server: they answer as from a folder, nobody waits for them but who asked, and
//! what goes wrong is told with its place.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::harness::{
    BINARY, Server, chat_body, content, copy_of, heldout, root, sha256_of, with_alpha,
};

const WEIGHTS: &str = "adapter_model.safetensors";
const LOAD: &str = "/v1/load_lora_adapter";

/// A web server over files in memory.
#[derive(Clone, Default)]
struct Web {
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    /// Methods and paths that were asked for.
    seen: Arc<Mutex<Vec<String>>>,
    /// Whether files below `/lora/slow` may go on.
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Web {
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let web = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = web.clone();
                std::thread::spawn(move || web.answer(stream));
            }
        });
        url
    }

    /// Serves the files of `folder` at `path`.
    fn serve(&self, path: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            let bytes = std::fs::read(entry.path()).expect("a file");
            self.files.lock().expect("whole").insert(format!("{path}/{name}"), bytes);
        }
    }

    fn seen(&self, method: &str) -> usize {
        let seen = self.seen.lock().expect("whole");
        seen.iter().filter(|line| line.starts_with(method)).count()
    }

    fn release(&self) {
        *self.open.0.lock().expect("whole") = true;
        self.open.1.notify_all();
    }

    /// Answers one request, and hangs up.
    fn answer(&self, mut stream: TcpStream) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).expect("a request");
        let mut words = head.split(' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        self.seen.lock().expect("whole").push(format!("{method} {path}"));
        if path.starts_with("/lora/slow/") && method == "GET" {
            let open = self.open.0.lock().expect("whole");
            drop(self.open.1.wait_while(open, |open| !*open).expect("whole"));
        }
        let file = self.files.lock().expect("whole").get(path).cloned();
        let (status, bytes) = file.map_or(("404 Not Found", Vec::new()), |bytes| ("200 OK", bytes));
        let (length, tag) = (bytes.len(), sha256_of(&bytes));
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"{tag}\"\r\n\
             connection: close\r\n\r\n"
        );
        // Whoever asked may have gone.
        let _ = stream.write_all(head.as_bytes());
        let is_torn = path.starts_with("/lora/torn/") && path.ends_with(WEIGHTS);
        let sent = if is_torn { &bytes[..length / 2] } else { &bytes[..] };
        if method == "GET" {
            let _ = stream.write_all(sent);
        }
    }
}

/// What an adapter answers, with the probability of every token.
async fn answer(server: &Server, adapter: &str, prompt: &str) -> Value {
    let mut body = chat_body(adapter, prompt);
    body["max_tokens"] = json!(24);
    body["logprobs"] = json!(true);
    let (status, answer) = server.post("/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{adapter}: {answer}");
    assert!(!content(&answer).is_empty());
    answer["choices"].clone()
}

async fn listed(server: &Server, name: &str) -> Value {
    let (status, list) = server.admin("GET", "/v1/lora_adapters", json!({})).await;
    assert_eq!(status, 200, "{list}");
    let mut adapters = list["data"].as_array().expect("a list").iter();
    adapters.find(|adapter| adapter["id"] == name).unwrap_or_else(|| panic!("{list}")).clone()
}

#[tokio::test]
async fn a_remote_adapter_answers_as_from_a_folder() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let local = copy_of("support", folder.path());
    let web = Web::default();
    let url = web.start();
    web.serve("/lora/support", &local);
    let digest = sha256_of(&std::fs::read(local.join(WEIGHTS)).expect("weights"));
    let address = format!("{url}/lora/support");
    let server = Server::over_adapters(
        folder.path(),
        &format!(
            "adapter_source = [\"{url}/lora\"]\n\
             [[adapter]]\nname = \"configured\"\npath = \"{address}#sha256={digest}\"\n"
        ),
    );
    let body = json!({"lora_name": "far", "lora_path": address});
    let (status, text) = server.admin("POST", LOAD, body.clone()).await;
    assert_eq!((status, text), (200, json!("Success: LoRA adapter 'far' added successfully.")));
    for index in 0..2 {
        let prompt = heldout("support", index);
        let expect = answer(&server, "support", &prompt).await;
        assert_eq!(answer(&server, "far", &prompt).await, expect);
        assert_eq!(answer(&server, "configured", &prompt).await, expect);
    }
    let here = listed(&server, "support").await;
    for (name, source) in
        [("far", address.clone()), ("configured", format!("{address}#sha256={digest}"))]
    {
        let far = listed(&server, name).await;
        assert_eq!((&far["generation"], &far["source"]), (&here["generation"], &json!(source)));
        assert_eq!(far["corpus"]["digest"], here["corpus"]["digest"], "its corpus came too");
    }
    assert_eq!(here.get("source"), None);
    // What has not changed is not read again, and what has changed is another generation.
    let gets = web.seen("GET");
    let (status, text) = server.admin("POST", "/v1/unload_lora_adapter", body.clone()).await;
    assert_eq!(status, 400, "unknown fields are refused: {text}");
    let unload = json!({"lora_name": "far"});
    assert_eq!(server.admin("POST", "/v1/unload_lora_adapter", unload).await.0, 200);
    assert_eq!(server.admin("POST", LOAD, body.clone()).await.0, 200);
    assert_eq!(web.seen("GET"), gets);
    assert_eq!(server.admin("POST", LOAD, body.clone()).await.0, 400, "its name is taken");
    with_alpha(&local, 0.5);
    web.serve("/lora/support", &local);
    let mut body = body;
    body["load_inplace"] = json!(true);
    assert_eq!(server.admin("POST", LOAD, body).await.0, 200);
    assert_ne!(listed(&server, "far").await["generation"], here["generation"]);
    assert_eq!(listed(&server, "configured").await["generation"], here["generation"]);
    let arguments = ["adapter", "load", "third", &address];
    let told = server.cli(&arguments).expect("the command line loads it");
    assert!(told.contains("third"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_adapters_that_are_fetched_but_who_asked_for_them() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let local = copy_of("support", folder.path());
    let web = Web::default();
    let url = web.start();
    web.serve("/lora/slow", &local);
    let server =
        Server::over_adapters(folder.path(), &format!("adapter_source = [\"{url}/lora\"]\n"));
    let body = json!({"lora_name": "slow", "lora_path": format!("{url}/lora/slow")});
    // More than the threads that serve.
    let loads = (0..8).map(|index| {
        let (mut body, server) = (body.clone(), &server);
        body["lora_name"] = json!(format!("slow-{index}"));
        async move { server.admin("POST", LOAD, body).await }
    });
    let mut loads = Box::pin(futures_util::future::join_all(loads));
    let prompt = heldout("support", 0);
    let asked = async {
        while web.seen("GET") == 0 {
            tokio::task::yield_now().await;
        }
        let expect = answer(&server, "support", &prompt).await;
        let (status, list) = server.get("/v1/models").await;
        assert!(status == 200 && !list.contains("slow-0"), "it has no name before it is here");
        expect
    };
    let expect = tokio::select! {
        expect = asked => expect,
        done = &mut loads => panic!("the files are held back: {done:?}"),
    };
    assert_eq!(web.seen("GET"), 1, "eight who ask for one fetch it once");
    web.release();
    for (status, text) in loads.await {
        assert_eq!(status, 200, "{text}");
    }
    assert_eq!(web.seen("GET"), 3, "each file once");
    assert_eq!(answer(&server, "slow-7", &prompt).await, expect);
}

#[tokio::test]
async fn remote_adapters_that_can_not_be_fetched_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let local = copy_of("support", folder.path());
    let web = Web::default();
    let url = web.start();
    for path in ["/lora/support", "/lora/torn", "/private"] {
        web.serve(path, &local);
    }
    std::fs::write(local.join(WEIGHTS), "no weights").expect("written");
    web.serve("/lora/garbage", &local);
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let config = format!(
        "adapter_source = [\"{url}/lora\", \"http://{gone}\"]\n\
         [limits]\nsource_adapter_bytes_max = 100000000\n"
    );
    let good = tempfile::tempdir().expect("temporary folder");
    copy_of("npc", good.path());
    let server = Server::over_adapters(good.path(), &config);
    let check = async |path: &str, status: u16, part: &str| {
        let body = json!({"lora_name": "far", "lora_path": path});
        let (got, answer) = server.admin("POST", LOAD, body).await;
        assert_eq!(got, status, "{path}: {answer}");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(part), "{path}: {message}");
    };
    let outside = "is not below any of the sources";
    check(&format!("{url}/private"), 400, outside).await;
    check(&format!("{url}/lora-2"), 400, outside).await;
    check("hf://org/repo", 400, outside).await;
    check(&format!("{url}/lora/../private"), 400, "is no place for adapters").await;
    check("file:///etc", 400, "its scheme is none of").await;
    check(&format!("{url}/lora/none"), 400, "has no adapter_config.json").await;
    let torn = format!("fetch adapter_model.safetensors of {url}/lora/torn");
    check(&format!("{url}/lora/torn"), 400, &torn).await;
    check(&format!("http://{gone}/a"), 400, "refused").await;
    check(&format!("{url}/lora/garbage"), 400, "safetensors").await;
    let pinned = format!("{url}/lora/support#sha256={}", "0".repeat(64));
    check(&pinned, 400, "it should be 0000").await;
    // Clients of the public API have no such route, and without a source nothing is fetched.
    let body = json!({"lora_name": "far", "lora_path": format!("{url}/lora/support")});
    assert_eq!(server.post(LOAD, body.clone()).await.0, 404);
    assert_eq!(server.admin("POST", LOAD, body.clone()).await.0, 200);
    let closed = Server::over_adapters(good.path(), "allow_runtime_lora_updating = true\n");
    let (status, answer) = closed.post(LOAD, body).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("lora_path")), "{answer}");
    // In the configuration it is an error of the start.
    let data = tempfile::tempdir().expect("temporary folder");
    let output = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--model"])
        .arg(root().join("examples/tiny/model"))
        .arg("--data-dir")
        .arg(data.path())
        .args(["--adapter-source", &url, "--adapter", &format!("far={url}/lora/torn")])
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(&torn), "{told}");
    let left = std::fs::read_dir(data.path().join("fetched/incoming")).expect("listed").count();
    assert_eq!(left, 0);
}
