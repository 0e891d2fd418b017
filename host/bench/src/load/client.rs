//! One request: sent, its stream read to the end, and each piece's time taken.

use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::events::Events;
use super::plan::Request;
use super::target::Target;
use crate::BenchError;

/// Longest piece of a server's message that is kept.
const MESSAGE_CHARS: usize = 200;
/// Most bytes read of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Header in which a server says how long an adapter's load took, in milliseconds.
const ADAPTER_WAIT_MS: &str = "x-mortise-adapter-wait-ms";
/// Wait for the list of models.
const DISCOVERY: Duration = Duration::from_secs(30);

/// What a client saw of one request. Times are from when it should have been sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// When the first text came; `None` if none did.
    pub(super) first: Option<Duration>,
    /// When the last text came.
    pub(super) last: Duration,
    /// Seconds between texts.
    pub(super) gaps_s: Vec<f32>,
    /// Tokens of the prompt, as the server counted.
    pub(super) prompt_tokens: u64,
    /// Tokens of the answer: as the server counted, else the pieces of text.
    pub(super) output_tokens: u64,
    /// Milliseconds that its adapter's load took, as the server said; 0 if there was none.
    pub(super) adapter_wait_ms: Option<f64>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// With the end of the stream.
    Complete,
    /// By us, since the time to measure was over.
    Cut,
    /// Not as it should.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// What failures are counted by.
    pub(super) cause: String,
    /// This one's own words.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(cause: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let message = message.to_string().chars().take(MESSAGE_CHARS).collect();
        Self { cause: cause.into(), message }
    }
}

/// Until when a request is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// End of the time to measure, if it has one.
    pub(super) cut: Option<Instant>,
    /// Longest wait for the whole answer.
    pub(super) timeout: Duration,
}

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    target: Target,
    model: String,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Client {
    /// Asks the server for the name of its base model, if the target has none.
    pub(super) async fn connect(target: &Target) -> Result<Self, BenchError> {
        let url = target.url.trim_end_matches('/').to_owned();
        let server = |reason: String| BenchError::Server { url: url.clone(), reason };
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| server(causes(&error)))?;
        let target = Target { url: url.clone(), ..target.clone() };
        let model = match &target.model {
            Some(model) => model.clone(),
            None => {
                let found = discover(&http, &target.url, target.api_key.as_deref());
                found.await.map_err(server)?
            }
        };
        Ok(Self { http, target, model })
    }

    /// The server.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request that was due at `due`, and reads its answer.
    pub(super) async fn send(&self, request: &Request, due: Instant, until: Until) -> (Seen, End) {
        let mut seen = Seen::default();
        let late = Instant::now() + until.timeout;
        let (end, is_cut) = match until.cut {
            Some(cut) if cut < late => (cut, true),
            _ => (late, false),
        };
        let end = match timeout_at(end, self.exchange(request, due, &mut seen)).await {
            Ok(Ok(())) => End::Complete,
            Ok(Err(failure)) => End::Failed(failure),
            Err(_) if is_cut => End::Cut,
            Err(_) => {
                let message = format!("no end after {:?}", until.timeout);
                End::Failed(Failure::new("timeout", message))
            }
        };
        (seen, end)
    }

    async fn exchange(
        &self,
        request: &Request,
        due: Instant,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let url = format!("{}{}", self.target.url, self.target.endpoint.path());
        let mut call = self.http.post(url).json(&self.target.body(&self.model, request));
        if let Some(key) = &self.target.api_key {
            call = call.bearer_auth(key);
        }
        let again = call.try_clone();
        let mut response = call.send().await;
        if let (Err(error), Some(again)) = (&response, again)
            && error.is_request()
            && !error.is_connect()
        {
            // Some servers close a connection behind an answer without saying so in it. Every client
            // then tries once more, and so does this one; the time counts.
            response = again.send().await;
        }
        let response = response.map_err(|error| Failure::new("connection", causes(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(response).await);
        }
        let wait = response.headers().get(ADAPTER_WAIT_MS).and_then(|value| value.to_str().ok());
        seen.adapter_wait_ms = wait.and_then(|wait| wait.parse().ok());
        let mut reader = Reader { due, seen, usage: None, done: false };
        let (mut events, mut stream) = (Events::default(), response.bytes_stream());
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| Failure::new("broken stream", causes(&error)))?;
            let (now, mut failure) = (Instant::now(), None);
            let read = events.push(&bytes, |data| {
                if let Err(error) = reader.event(data, now) {
                    failure.get_or_insert(error);
                }
            });
            read.map_err(|_| Failure::new("malformed", "an endless line"))?;
            failure.map_or(Ok(()), Err)?;
        }
        reader.finish()
    }
}

/// Takes in one stream's events.
struct Reader<'a> {
    due: Instant,
    seen: &'a mut Seen,
    usage: Option<Usage>,
    done: bool,
}

impl Reader<'_> {
    fn event(&mut self, data: &[u8], now: Instant) -> Result<(), Failure> {
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|error| {
            Failure::new("malformed", format!("{error}: {}", String::from_utf8_lossy(data)))
        })?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(Failure::new("error in stream", error));
        }
        let has_text = chunk.choices.iter().any(|choice| {
            let content = choice.delta.as_ref().and_then(|delta| delta.content.as_ref());
            choice.text.as_ref().or(content).is_some_and(|text| !text.is_empty())
        });
        if has_text {
            let at = now.saturating_duration_since(self.due);
            match self.seen.first {
                None => self.seen.first = Some(at),
                Some(_) => self.seen.gaps_s.push((at - self.seen.last).as_secs_f32()),
            }
            self.seen.last = at;
            self.seen.output_tokens += 1;
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        if !self.done {
            return Err(Failure::new("cut short", "the stream ended without [DONE]"));
        }
        if let Some(usage) = self.usage {
            self.seen.prompt_tokens = usage.prompt_tokens;
            self.seen.output_tokens = usage.completion_tokens;
        }
        if self.seen.output_tokens == 0 {
            return Err(Failure::new("empty", "an answer without a token"));
        }
        Ok(())
    }
}

/// The first model that the server at `url` lists.
pub(super) async fn discover(
    http: &reqwest::Client,
    url: &str,
    api_key: Option<&str>,
) -> Result<String, String> {
    let mut call = http.get(format!("{url}/v1/models")).timeout(DISCOVERY);
    if let Some(key) = api_key {
        call = call.bearer_auth(key);
    }
    let response = call.send().await.map_err(|error| causes(&error))?;
    if !response.status().is_success() {
        return Err(refusal(response).await.message);
    }
    let models: Models = response.json().await.map_err(|error| causes(&error))?;
    let first = models.data.into_iter().next();
    first.map(|model| model.id).ok_or_else(|| "it lists no models".to_owned())
}

/// What a server said that refused.
pub(super) async fn refusal(mut response: reqwest::Response) -> Failure {
    let status = response.status();
    let mut text = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        text.extend_from_slice(&bytes);
        if text.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    let cause = format!("status {}", status.as_u16());
    Failure::new(cause, format!("{status}: {}", String::from_utf8_lossy(&text)))
}

/// An error with its causes: reqwest keeps to itself why nothing could be sent.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        told = format!("{told}: {cause}");
        next = cause.source();
    }
    told
}
