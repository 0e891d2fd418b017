//! Adapters fetched from a store in memory, from a directory, and from a hub and web server of ours.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::*;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

fn config(dir: &Path, allowed: &[&str]) -> SourcesConfig {
    SourcesConfig {
        dir: dir.to_owned(),
        allowed: allowed.iter().map(|prefix| prefix.parse().expect(prefix)).collect(),
        cache_bytes_max: 1000,
        adapter_bytes_max: 500,
        timeout: Duration::from_secs(20),
        hub_endpoint: "http://127.0.0.1:9".to_owned(),
        hub_token: None,
        options: Vec::new(),
    }
}

fn sources(dir: &Path, allowed: &[&str]) -> Sources {
    Sources::open(config(dir, allowed)).expect("opened")
}

async fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: usize, fill: u8) {
    store.put(&path.into(), vec![fill; bytes].into()).await.expect("put");
}

fn at(text: &str) -> Location {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Directories that are visible.
fn visible(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("listed").count() - 1
}

#[tokio::test]
async fn an_adapter_is_fetched_once_until_it_changes() {
    let dir = tempfile::tempdir().expect("folder");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut sources = sources(dir.path(), &["s3://bucket/lora"]);
    sources.store = Some(Arc::clone(&store));
    let location = at("s3://bucket/lora/a");
    let missing = |file| format!("s3://bucket/lora/a has no {file}");
    let told = |fetched: Result<Fetched, SourceError>| fetched.expect_err("refused").to_string();
    assert_eq!(told(sources.fetch(&location).await), missing(CONFIG));
    put(&store, "lora/a/adapter_config.json", 20, 1).await;
    assert_eq!(told(sources.fetch(&location).await), missing(WEIGHTS));
    put(&store, "lora/a/adapter_model.safetensors", 200, 2).await;
    let one = sources.fetch(&location).await.expect("fetched");
    assert_eq!(std::fs::read(one.dir().join(WEIGHTS)).expect("there"), vec![2; 200]);
    assert!(!one.dir().join("corpus.jsonl").exists());
    let again = sources.fetch(&location).await.expect("here");
    assert_eq!((again.dir(), visible(dir.path())), (one.dir(), 1));
    // The same content under another address is there once.
    put(&store, "lora/b/adapter_config.json", 20, 1).await;
    put(&store, "lora/b/adapter_model.safetensors", 200, 2).await;
    assert_eq!(sources.fetch(&at("s3://bucket/lora/b")).await.expect("b").dir(), one.dir());
    put(&store, "lora/a/adapter_model.safetensors", 200, 3).await;
    let changed = sources.fetch(&location).await.expect("fetched anew");
    assert_ne!(changed.dir(), one.dir());
    assert_eq!(std::fs::read(one.dir().join(WEIGHTS)).expect("held"), vec![2; 200]);
    put(&store, "lora/a/corpus.jsonl", 30, 4).await;
    let credited = sources.fetch(&location).await.expect("with its corpus");
    assert!(credited.dir().join("corpus.jsonl").is_file());
    assert_eq!(visible(dir.path()), 3);
}

#[tokio::test]
async fn what_is_too_large_or_not_allowed_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut sources = sources(dir.path(), &["s3://bucket/lora"]);
    sources.store = Some(Arc::clone(&store));
    for (name, bytes) in [("fits", 480), ("large", 481), ("more", 470), ("most", 460)] {
        put(&store, &format!("lora/{name}/adapter_config.json"), 20, 1).await;
        put(&store, &format!("lora/{name}/adapter_model.safetensors"), bytes, 2).await;
    }
    let location = |name: &str| at(&format!("s3://bucket/lora/{name}"));
    let fits = sources.fetch(&location("fits")).await.expect("500 bytes");
    let large = sources.fetch(&location("large")).await.expect_err("501 bytes");
    assert!(matches!(large, SourceError::TooLarge { bytes: 501, bytes_max: 500, .. }), "{large}");
    let more = sources.fetch(&location("more")).await.expect("490 more");
    let full = sources.fetch(&location("most")).await.expect_err("no room");
    assert!(matches!(full, SourceError::CacheFull { held: 990, .. }), "{full}");
    drop(fits);
    sources.fetch(&location("most")).await.expect("what nobody holds made room");
    drop(more);
    for text in ["s3://bucket/other/fits", "s3://bucket-2/lora/fits", "hf://org/x", "http://host/a"]
    {
        let refused = sources.fetch(&at(text)).await.expect_err(text);
        assert!(matches!(refused, SourceError::NotAllowed { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_pinned_digest_must_be_met() {
    let dir = tempfile::tempdir().expect("folder");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut sources = sources(dir.path(), &["gs://bucket"]);
    sources.store = Some(Arc::clone(&store));
    put(&store, "a/adapter_config.json", 2, b'{').await;
    put(&store, "a/adapter_model.safetensors", 7, b'w').await;
    let pinned = |digest: &str| at(&format!("gs://bucket/a#sha256={digest}"));
    let digest = hex::encode(Sha256::digest("wwwwwww"));
    sources.fetch(&pinned(&digest)).await.expect("the digest is right");
    let wrong = pinned(&hex::encode(Sha256::digest("other")));
    let dropped = sources.fetch(&wrong).await.expect_err("another digest").to_string();
    assert!(dropped.contains(WEIGHTS) && dropped.contains(&digest), "{dropped}");
    assert_eq!(visible(dir.path()), 1);
    assert_eq!(sources.cache_bytes(), 9);
}

/// A hub whose files lie on another host, as those of the real one do.
#[derive(Clone, Default)]
struct Hub {
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    elsewhere: String,
    gets: Arc<AtomicUsize>,
    /// What is said of the weights' digest instead of the truth.
    lie: Option<String>,
    /// Whether files end before they should.
    torn: bool,
}

impl Hub {
    async fn start(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().fallback(answer).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
        Self { files: Arc::new(Mutex::new(files.collect())), ..Self::default() }
    }
}

async fn answer(State(hub): State<Hub>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorized =
        request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    if let Some(name) = path.strip_prefix("/cdn/") {
        // The token is the hub's alone.
        assert_eq!(authorized, None, "a token went to another host");
        hub.gets.fetch_add(1, Ordering::Relaxed);
        let bytes = hub.files.lock().expect("whole").get(name).cloned().expect(name);
        let length = bytes.len();
        let sent = if hub.torn { bytes[..length / 2].to_vec() } else { bytes };
        let pieces = futures_util::stream::iter([Ok(sent), Err(std::io::Error::other("gone"))]);
        let pieces = futures_util::StreamExt::take(pieces, if hub.torn { 2 } else { 1 });
        return ([(header::CONTENT_LENGTH, length)], Body::from_stream(pieces)).into_response();
    }
    assert_eq!(authorized.as_deref(), Some(b"Bearer secret".as_slice()));
    if let Some(rest) = path.strip_prefix("/old/name/") {
        let location = format!("/org/repo/{rest}");
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response();
    }
    let rest = path.strip_prefix("/org/repo/resolve/").expect("a resolve address");
    let (revision, name) = rest.split_once('/').expect("a revision");
    assert!(["main", "v1", "abc123"].contains(&revision), "{revision}");
    let Some(bytes) = hub.files.lock().expect("whole").get(name).cloned() else {
        return (StatusCode::NOT_FOUND, [("x-error-code", "EntryNotFound")]).into_response();
    };
    let mut headers = HeaderMap::new();
    let mut set =
        |name: &'static str, value: String| headers.insert(name, value.parse().expect("ASCII"));
    set("x-repo-commit", "abc123".to_owned());
    if request.method() == Method::HEAD {
        let digest = hub.lie.clone().unwrap_or_else(|| hex::encode(Sha256::digest(&bytes)));
        set("x-linked-size", bytes.len().to_string());
        set("x-linked-etag", format!("\"{digest}\""));
    }
    set("location", format!("{}/cdn/{name}", hub.elsewhere));
    (StatusCode::FOUND, headers).into_response()
}

/// Sources whose hub is `hub`, with its files on a host of their own, which may be read.
async fn hub_sources(dir: &Path, hub: Hub) -> Sources {
    hub_sources_that_allow(dir, hub, "http://").await
}

async fn hub_sources_that_allow(dir: &Path, hub: Hub, store: &str) -> Sources {
    let elsewhere = hub.clone().start().await;
    // Another name of this machine is another host to whoever holds a token.
    let elsewhere = elsewhere.replace("127.0.0.1", "localhost");
    let hub_endpoint = Hub { elsewhere, ..hub }.start().await;
    let hub_token = Some("secret".to_owned());
    let allowed = ["hf://org", "hf://old", store];
    let config = SourcesConfig { hub_endpoint, hub_token, ..config(dir, &allowed) };
    Sources::open(config).expect("opened")
}

const FILES: [(&str, &str); 2] = [(CONFIG, "{}"), (WEIGHTS, "weights")];

#[tokio::test]
async fn a_repository_is_fetched_from_the_hub() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::with(&FILES);
    let gets = Arc::clone(&hub.gets);
    let sources = hub_sources(dir.path(), hub).await;
    let location = at("hf://org/repo@v1");
    let (one, other) = tokio::join!(sources.fetch(&location), sources.fetch(&location));
    let (one, other) = (one.expect("fetched"), other.expect("fetched"));
    assert_eq!(one.dir(), other.dir());
    assert_eq!(std::fs::read(one.dir().join(WEIGHTS)).expect("there"), b"weights");
    assert_eq!(gets.load(Ordering::Relaxed), 2, "each file once for both");
    let renamed = sources.fetch(&at("hf://old/name")).await.expect("under its new name");
    assert_eq!(renamed.dir(), one.dir());
}

#[tokio::test]
async fn lies_and_torn_files_of_a_hub_are_never_visible() {
    let dir = tempfile::tempdir().expect("folder");
    let fetch = async |hub: Hub| {
        let sources = hub_sources(dir.path(), hub).await;
        let error = sources.fetch(&at("hf://org/repo")).await.expect_err("refused");
        assert_eq!(visible(dir.path()), 0, "{error}");
        error
    };
    let lie = Some(hex::encode(Sha256::digest("other")));
    let error = fetch(Hub { lie, ..Hub::with(&FILES) }).await;
    assert!(matches!(error, SourceError::Checksum { .. }), "{error}");
    let error = fetch(Hub { torn: true, ..Hub::with(&FILES) }).await;
    assert!(matches!(error, SourceError::Remote { .. }), "{error}");
    let error = fetch(Hub::with(&FILES[..1])).await;
    assert!(matches!(error, SourceError::Missing { file: WEIGHTS, .. }), "{error}");
}

#[tokio::test]
async fn a_hub_sends_nobody_where_the_operator_has_not_allowed_it() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::with(&FILES);
    let gets = Arc::clone(&hub.gets);
    let sources = hub_sources_that_allow(dir.path(), hub, "https://other.example").await;
    let error = sources.fetch(&at("hf://org/repo")).await.expect_err("refused").to_string();
    assert!(error.contains("302 Found to http://localhost:"), "{error}");
    assert!(error.ends_with("which is not allowed"), "{error}");
    assert_eq!((gets.load(Ordering::Relaxed), visible(dir.path())), (0, 0));
}

/// What a web server does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Sends more than it announced, without end.
    Endless,
    /// Has a configuration that is none.
    Large,
    /// Announces what it does not have.
    Lies,
    NoLength,
    /// Is another file when it is read.
    Changes,
    Loops,
    ToFile,
    ToMetadata,
    ToNowhere,
    Forbids,
    /// Errors that never end.
    Shouts,
}

async fn web(State(fault): State<Fault>, request: Request) -> Response {
    let path = request.uri().path();
    let to = |to: &str| (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
    let is_head = request.method() == Method::HEAD;
    let text = match path.rsplit('/').next().expect("a name") {
        _ if !path.starts_with("/a/") => return StatusCode::NOT_FOUND.into_response(),
        CONFIG => "{}",
        WEIGHTS => "weights",
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let endless = || {
        let piece = Ok::<_, std::io::Error>(vec![b'x'; 1000]);
        Body::from_stream(futures_util::stream::repeat_with(move || match &piece {
            Ok(piece) => Ok(piece.clone()),
            Err(_) => Err(std::io::Error::other("never")),
        }))
    };
    if path.ends_with(CONFIG) && fault == Fault::Large {
        return ([(header::CONTENT_LENGTH, (4 << 20) + 1)], "").into_response();
    }
    if path.ends_with(CONFIG) && fault != Fault::Forbids {
        return ([(header::ETAG, "\"1\"")], text).into_response();
    }
    match fault {
        Fault::Loops => to(path),
        Fault::ToFile => to("file:///etc/passwd"),
        Fault::ToMetadata => to("http://169.254.169.254/latest/meta-data/"),
        Fault::ToNowhere => to("http://["),
        Fault::Forbids => (StatusCode::FORBIDDEN, "no entry").into_response(),
        Fault::Shouts if !is_head => (StatusCode::INTERNAL_SERVER_ERROR, endless()).into_response(),
        Fault::NoLength => endless().into_response(),
        Fault::Endless if !is_head => endless().into_response(),
        Fault::Lies if is_head => ([(header::CONTENT_LENGTH, 9)], "").into_response(),
        Fault::Changes if is_head => {
            ([(header::ETAG, "\"2\"")], [(header::CONTENT_LENGTH, 7)], "").into_response()
        }
        _ => text.into_response(),
    }
}

async fn web_server(fault: Fault) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Router::new().fallback(web).with_state(fault);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn a_web_server_is_a_source_too() {
    let dir = tempfile::tempdir().expect("folder");
    let url = web_server(Fault::None).await;
    let sources = sources(dir.path(), &[&url]);
    let fetched = sources.fetch(&at(&format!("{url}/a"))).await.expect("fetched");
    assert_eq!(std::fs::read(fetched.dir().join(WEIGHTS)).expect("there"), b"weights");
    let missing = sources.fetch(&at(&format!("{url}/b"))).await.expect_err("nothing there");
    assert!(matches!(missing, SourceError::Missing { .. }), "{missing}");
}

#[tokio::test]
async fn what_a_web_server_does_wrong_is_told_and_leaves_nothing() {
    let check = async |fault: Fault, expect: &str| {
        let dir = tempfile::tempdir().expect("folder");
        let url = web_server(fault).await;
        let sources = sources(dir.path(), &[&url]);
        let error = sources.fetch(&at(&format!("{url}/a"))).await.expect_err(expect).to_string();
        assert!(error.contains(expect) && error.contains(&url), "{error}\n{expect}");
        assert_eq!((visible(dir.path()), sources.cache_bytes()), (0, 0), "{error}");
        let incoming = std::fs::read_dir(dir.path().join("incoming")).expect("listed");
        assert_eq!(incoming.count(), 0, "{error}");
    };
    check(Fault::Endless, "has 1000 bytes, 7 were announced").await;
    check(Fault::Large, "it has 4194305 bytes, 4194304 are enough").await;
    check(Fault::Lies, "it has changed since it was looked at").await;
    check(Fault::NoLength, "no length is announced").await;
    check(Fault::Changes, "it has changed since it was looked at").await;
    check(Fault::Loops, "more than 5 redirects").await;
    check(Fault::ToFile, "302 Found to null, which is not allowed").await;
    check(Fault::ToMetadata, "302 Found to http://169.254.169.254, which is not allowed").await;
    check(Fault::ToNowhere, "302 Found to no address").await;
    check(Fault::Forbids, "403 Forbidden").await;
    check(Fault::Shouts, "500 Internal Server Error").await;
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let dir = tempfile::tempdir().expect("folder");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let url = format!("http://{}", gone.expect("bound"));
    let sources = sources(dir.path(), &[&url]);
    let error = sources.fetch(&at(&format!("{url}/a"))).await.expect_err("refused").to_string();
    assert!(error.contains("refused") && error.contains(CONFIG), "{error}");
}

/// An object store that speaks S3, as far as one who reads needs it.
async fn bucket(State(seen): State<Arc<Mutex<Vec<String>>>>, request: Request) -> Response {
    let authorized = request.headers().get(header::AUTHORIZATION);
    let authorized = authorized.and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(authorized.starts_with("AWS4-HMAC-SHA256 Credential=key/"), "{authorized}");
    seen.lock().expect("whole").push(format!("{} {}", request.method(), request.uri().path()));
    let text = match request.uri().path() {
        "/bucket/lora/a/adapter_config.json" => "{}",
        "/bucket/lora/a/adapter_model.safetensors" => "weights",
        "/bucket/lora/endless/adapter_config.json" => {
            let piece = || Ok::<_, std::io::Error>(vec![b'x'; 1000]);
            let body = Body::from_stream(futures_util::stream::repeat_with(piece));
            return (StatusCode::BAD_REQUEST, body).into_response();
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let modified = (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT");
    ([modified, (header::ETAG, "\"tag\"")], text).into_response()
}

#[tokio::test]
async fn a_bucket_is_read_with_the_operators_keys() {
    let dir = tempfile::tempdir().expect("folder");
    let seen = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Router::new().fallback(bucket).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let options = [
        ("aws_access_key_id", "key"),
        ("aws_secret_access_key", "secret"),
        ("aws_endpoint_url", &url),
        ("azure_storage_account_name", "of no concern to it"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let config = SourcesConfig { options, ..config(dir.path(), &["s3://bucket"]) };
    let sources = Sources::open(config).expect("opened");
    let fetched = sources.fetch(&at("s3://bucket/lora/a")).await.expect("fetched");
    assert_eq!(std::fs::read(fetched.dir().join(WEIGHTS)).expect("there"), b"weights");
    let again = sources.fetch(&at("s3://bucket/lora/a")).await.expect("still here");
    assert_eq!(again.dir(), fetched.dir());
    let gets = seen.lock().expect("whole").iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(gets, 2, "what has not changed is not read again");
    let error = sources.fetch(&at("s3://bucket/lora/endless")).await.expect_err("refused");
    let error = error.to_string();
    assert!(error.contains("adapter_config.json") && error.len() < 500, "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_nothing_and_many_are_refused() {
    let dir = tempfile::tempdir().expect("folder");
    // Takes connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let mut config = config(dir.path(), &[&url]);
    config.timeout = Duration::from_millis(300);
    let sources = Sources::open(config).expect("opened");
    let location = |index: usize| at(&format!("{url}/{index}"));
    let locations: Vec<Location> = (0..=fetch::WAITING_MAX).map(location).collect();
    let all = locations.iter().map(|location| sources.fetch(location));
    let all = futures_util::future::join_all(all).await;
    let told: Vec<SourceError> = all.into_iter().map(|one| one.expect_err("silent")).collect();
    let (last, first) = told.split_last().expect("some");
    assert!(matches!(last, SourceError::Busy { .. }), "{last}");
    for error in first {
        assert!(matches!(error, SourceError::Timeout { .. }), "{error}");
    }
    let busy = sources.fetch(&location(0)).await.expect_err("silent still");
    assert!(matches!(busy, SourceError::Timeout { .. }), "there is room again: {busy}");
    assert_eq!(sources.cache_bytes(), 0);
}
