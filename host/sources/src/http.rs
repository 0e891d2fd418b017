//! HTTP/1.1, with TLS where an address says so: one answer to one request. Follows no redirect, believes no
//! server that talks without end, and waits for none that is silent.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector as StoreConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};

/// Longest time until somebody takes a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest silence of the other side, before an answer and within one.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes that are read of an answer that is no file: it goes into messages.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// A client for all sources.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

/// The other side said nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer for {} s", SILENCE_MAX.as_secs())]
struct Silence;

impl Http {
    /// With the certificates of this machine's authorities.
    pub(crate) fn new() -> Self {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = || {
            let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
            builder.with_safe_default_protocol_versions().expect("ring has both versions of TLS")
        };
        let tls = match tls().with_native_roots() {
            Ok(tls) => tls,
            // Whoever has no authorities may have sources without TLS.
            Err(error) => {
                tracing::warn!(%error, "no https address will be believed");
                tls().with_root_certificates(rustls::RootCertStore::empty())
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends a request, and waits for the head of its answer.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(SILENCE_MAX, self.0.request(request)).await;
        let answer = answer.map_err(|_| HttpError::new(HttpErrorKind::Timeout, Silence))?;
        let (head, body) = answer.map_err(failed)?.into_parts();
        let body = if head.status.is_success() {
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        } else {
            let body = Limited::new(body, ERROR_BYTES_MAX);
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error)),
            )
        };
        Ok(HttpResponse::from_parts(head, body))
    }
}

fn failed(error: Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
    HttpError::new(kind, error)
}

#[async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await
    }
}

impl StoreConnector for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
