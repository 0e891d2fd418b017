//! One visit to a server, well-behaved or not, and whose fault its end was.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Url;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::client::{Failure, causes, refusal};
use super::super::events::Events;
use super::act::{Act, Kind, Manner, Names, Who};
use crate::BenchError;

/// Longest time in which a client that sends half a request keeps its connection.
const HALF: Duration = Duration::from_millis(50);

/// How a visit ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ended {
    /// With the answer that was asked for.
    Answered,
    /// By the client, as it meant to.
    Left,
    /// With the server's word that it has too much to do.
    Busy,
    /// With the refusal that was to be expected.
    Refused,
    /// With something that no client asked for.
    Foreign(Failure),
}

/// Visits one server.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) http: reqwest::Client,
    pub(super) url: Url,
    pub(super) api_key: Option<String>,
    pub(super) names: Names,
    /// Longest wait for one answer.
    pub(super) timeout: Duration,
}

/// What is read of a stream.
#[derive(Default)]
struct Read {
    pieces: usize,
    done: bool,
    failure: Option<Failure>,
}

impl Visitor {
    /// Checks the address: half a request is written to a socket, which has no TLS.
    ///
    /// # Errors
    /// Another scheme, or no host.
    pub(super) fn address(url: &str) -> Result<Url, BenchError> {
        let refused = |reason: String| BenchError::setting("url", reason);
        let parsed = Url::parse(url).map_err(|error| refused(format!("{url:?}: {error}")))?;
        match (parsed.scheme(), parsed.host_str()) {
            ("http", Some(_)) => Ok(parsed),
            _ => Err(refused(format!("{url:?} does not begin with http:// and a host"))),
        }
    }

    /// One visit.
    pub(super) async fn visit(&self, act: &Act) -> Ended {
        match act.manner {
            Manner::HalfHead => self.half(act, false).await,
            Manner::HalfBody => self.half(act, true).await,
            Manner::LeaveIn(time) => timeout(time, self.ask(act)).await.unwrap_or(Ended::Left),
            _ => timeout(self.timeout, self.ask(act)).await.unwrap_or_else(|_| {
                let message = format!("no end after {:?}: {act:?}", self.timeout);
                Ended::Foreign(Failure::new("timeout", message))
            }),
        }
    }

    async fn ask(&self, act: &Act) -> Ended {
        let (path, body) = act.call(&self.names);
        let sent = || self.post(path, &body).send();
        let mut response = sent().await;
        if response.as_ref().is_err_and(|error| error.is_request() && !error.is_connect()) {
            // A connection that the server had closed meanwhile.
            response = sent().await;
        }
        let response = match response {
            Ok(response) => response,
            Err(error) => return foreign("connection", causes(&error)),
        };
        if !response.status().is_success() {
            return refused(act.who, response).await;
        }
        if act.who == Who::Nobody {
            return foreign("answered", "a model that nobody has answered");
        }
        match act.streams() {
            true => self.read_stream(act, response).await,
            false => read_whole(act, response).await,
        }
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(path);
        let call = self.http.post(url).json(body);
        match &self.api_key {
            Some(key) => call.bearer_auth(key),
            None => call,
        }
    }

    async fn read_stream(&self, act: &Act, response: reqwest::Response) -> Ended {
        let (mut events, mut stream) = (Events::default(), response.bytes_stream());
        let mut read = Read::default();
        while let Some(bytes) = stream.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return foreign("broken stream", causes(&error)),
            };
            if events.push(&bytes, |data| read.event(data)).is_err() {
                return foreign("malformed", "an endless line");
            }
            if let Some(failure) = read.failure {
                return Ended::Foreign(failure);
            }
            match act.manner {
                Manner::LeaveAfter(pieces) if read.pieces >= pieces => return Ended::Left,
                Manner::Stall(time) => {
                    sleep(time).await;
                    return Ended::Left;
                }
                _ => {}
            }
        }
        match (read.done, read.pieces) {
            (false, _) => foreign("cut short", "the stream ended without [DONE]"),
            (true, 0) => foreign("empty", "an answer without a piece"),
            (true, _) => Ended::Answered,
        }
    }

    /// Sends half of the headers or half of the body, waits a little, and leaves.
    async fn half(&self, act: &Act, whole_head: bool) -> Ended {
        let (path, body) = act.call(&self.names);
        let body = body.to_string();
        let (host, port) =
            (self.url.host_str().unwrap_or_default(), self.url.port_or_known_default());
        let key = self.api_key.as_ref().map(|key| format!("authorization: Bearer {key}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{}content-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            key.unwrap_or_default(),
            body.len()
        );
        let sent = match whole_head {
            true => [head.as_bytes(), &body.as_bytes()[..body.len() / 2]].concat(),
            false => head.as_bytes()[..head.len() / 2].to_vec(),
        };
        let talk = async {
            let mut socket = TcpStream::connect((host, port.unwrap_or(80))).await?;
            socket.write_all(&sent).await?;
            let mut answer = [0; 64];
            // An answer to half a request would be one to something else.
            match timeout(HALF, socket.read(&mut answer)).await {
                Ok(read) => read,
                Err(_) => Ok(0),
            }
        };
        match talk.await {
            Ok(0) => Ended::Left,
            Ok(_) => foreign("answered", "half a request was answered"),
            Err(error) => foreign("connection", causes(&error)),
        }
    }
}

impl Read {
    fn event(&mut self, data: &[u8]) {
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        self.pieces += 1;
        let failure = match serde_json::from_slice::<Value>(data) {
            Ok(value) if value["error"].is_null() => return,
            Ok(value) => Failure::new("error in stream", &value["error"]),
            Err(error) => Failure::new("malformed", error),
        };
        self.failure.get_or_insert(failure);
    }
}

fn foreign(cause: &str, message: impl std::fmt::Display) -> Ended {
    Ended::Foreign(Failure::new(cause, message))
}

/// Whose fault a refusal is.
async fn refused(who: Who, response: reqwest::Response) -> Ended {
    let status = response.status().as_u16();
    // Names that come and go may have gone.
    let gone = matches!(who, Who::Changing(_) | Who::Nobody) && status == 404;
    match status {
        404 if gone => Ended::Refused,
        429 => Ended::Busy,
        _ => Ended::Foreign(refusal(response).await),
    }
}

/// Reads an answer that comes whole, and looks at what was asked for.
async fn read_whole(act: &Act, response: reqwest::Response) -> Ended {
    let body: Value = match response.json().await {
        Ok(body) => body,
        Err(error) => return foreign("broken answer", causes(&error)),
    };
    let text = body["choices"][0]["text"].as_str();
    let fits = match act.kind {
        Kind::Embedding => {
            body["data"][0]["embedding"].as_array().is_some_and(|vector| !vector.is_empty())
        }
        Kind::Schema => {
            let ended = body["choices"][0]["finish_reason"] == "stop";
            let parsed = text.map(serde_json::from_str::<Value>);
            parsed.is_some_and(|parsed| !ended || parsed.is_ok_and(|value| value["a"].is_boolean()))
        }
        _ => text.is_some(),
    };
    if fits { Ended::Answered } else { foreign("wrong answer", body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http() {
        for url in ["http://127.0.0.1:8080", "http://host/", "http://[::1]:80"] {
            Visitor::address(url).expect(url);
        }
        for url in ["https://host", "host:80", "http:", "", "ftp://host"] {
            assert!(Visitor::address(url).is_err(), "{url}");
        }
    }

    #[test]
    fn pieces_are_counted_and_errors_are_found() {
        let check = |events: &[&str], expect: (usize, bool, Option<&str>)| {
            let mut read = Read::default();
            events.iter().for_each(|event| read.event(event.as_bytes()));
            let cause = read.failure.as_ref().map(|failure| failure.cause.as_str());
            assert_eq!((read.pieces, read.done, cause), expect);
        };
        check(&["{}", "{\"error\": null}", "[DONE]"], (2, true, None));
        check(&["{}", "{\"error\": {\"message\": \"x\"}}"], (2, false, Some("error in stream")));
        check(&["<"], (1, false, Some("malformed")));
    }
}
