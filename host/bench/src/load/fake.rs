//! A server that says what it is told to, for tests of the generator. It is no model.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Debug)]
pub(super) enum Behavior {
    /// With as many pieces as tokens were wanted.
    Answer,
    /// So, with a pause before each piece.
    Slow(Duration),
    /// With this status.
    Refuse(u16),
    /// With these bytes of a stream, as they stand.
    Raw(&'static str),
    /// With a stream that ends in the middle of a chunk.
    Abort,
    /// Never.
    Silent,
}

/// What it was asked, and how it answers each: the last behavior holds for all that follow.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Value>>>,
    behaviors: Arc<Vec<Behavior>>,
}

impl Fake {
    /// Listens on a free port for as long as the test's runtime lives.
    pub(super) async fn start(behaviors: &[Behavior]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let fake = Self { url, asked: Arc::default(), behaviors: Arc::new(behaviors.to_vec()) };
        let router = Router::new()
            .route("/v1/models", get(|| async { axum::Json(json!({"data": [{"id": "base"}]})) }))
            .route("/v1/completions", post(answer))
            .route("/v1/chat/completions", post(answer))
            .with_state(fake.clone());
        // Else pieces wait for one another.
        let listener = listener.tap_io(|tcp| tcp.set_nodelay(true).expect("a socket"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// Every body that came, in order.
    pub(super) fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

async fn answer(State(fake): State<Fake>, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let tokens = body["max_tokens"].as_u64().expect("a number");
    let prompt = body["prompt"].as_array().map_or(1, Vec::len);
    let adapter = body["model"].as_str().is_some_and(|model| model.starts_with("adapter-"));
    let index = {
        let mut asked = fake.asked.lock().expect("no test panics with it");
        asked.push(body);
        asked.len() - 1
    };
    let last = fake.behaviors.len() - 1;
    let pause = match fake.behaviors[index.min(last)] {
        Behavior::Answer => Duration::ZERO,
        Behavior::Slow(pause) => pause,
        Behavior::Refuse(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return (status, "{\"error\": {\"message\": \"no\"}}").into_response();
        }
        Behavior::Raw(text) => return text.into_response(),
        Behavior::Abort => {
            let begun = stream::iter([Ok("data: {\"choi")]);
            let gone = stream::once(async {
                // What was written goes out while nothing more is there.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("gone"))
            });
            return Body::from_stream(begun.chain(gone)).into_response();
        }
        Behavior::Silent => std::future::pending().await,
    };
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": tokens});
    let text = json!({"choices": [{"index": 0, "text": "x", "delta": {"content": "x"}}]});
    let end = [json!({"choices": [], "usage": usage}).to_string(), "[DONE]".to_owned()];
    let lines = (0..tokens).map(move |_| text.to_string()).chain(end);
    let pieces = stream::unfold(lines, move |mut lines| async move {
        let line = lines.next()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, Infallible>(format!("data: {line}\n\n")), lines))
    });
    let response = Body::from_stream(pieces).into_response();
    match fake.behaviors[index.min(last)] {
        // As if every other adapter had to be loaded.
        Behavior::Answer if adapter => {
            let wait = if index % 2 == 0 { "0" } else { "12.5" };
            ([("x-mortise-adapter-wait-ms", wait)], response).into_response()
        }
        _ => response,
    }
}
