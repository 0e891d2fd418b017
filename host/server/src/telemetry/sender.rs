//! The HTTP client of the exporters, whose threads know no runtime: it sends on the server's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

/// Longest time that one export may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends exports; tells the log when that begins to fail and when it works again.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    failing: Arc<AtomicBool>,
}

impl Sender {
    /// On the present runtime.
    pub(super) fn new() -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(EXPORT_MAX).build()?;
        Ok(Self { client, runtime: Handle::current(), failing: Arc::default() })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let mut answer = self.client.execute(request).await?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                break;
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Response::builder().status(status).body(bytes.into())?)
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (sender, uri) = (self.clone(), request.uri().clone());
        let sent = self.runtime.spawn(async move { sender.send(request).await }).await;
        let sent = sent.map_err(HttpError::from).and_then(|sent| sent);
        let failed = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.failing.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(reason) if !was_failing => {
                tracing::warn!(%uri, reason, "spans or metrics are not taken; requests go on");
            }
            None if was_failing => tracing::info!(%uri, "spans and metrics are taken again"),
            _ => {}
        }
        sent
    }
}
