//! The other side: object stores, web servers, Hugging Face's hub. Looks at files and reads them; writes
//! nothing.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::client::HttpResponse;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};

use crate::hub::Hub;
use crate::web::{Web, text};

/// Bytes of a file, in pieces.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, String>>;

/// A file as it is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) bytes: u64,
    /// What changes when the file does, if the other side says so.
    pub(crate) version: Option<String>,
    /// Digest of the content, if the other side knows it.
    pub(crate) sha256: Option<String>,
}

/// A directory on the other side.
pub(crate) enum Remote {
    Store { store: Arc<dyn ObjectStore>, dir: Path },
    Web(Web),
    Hub(Hub),
}

impl Remote {
    /// Looks at a file; `None` if it is not there.
    pub(crate) async fn look(&self, file: &str) -> Result<Option<Announced>, String> {
        match self {
            Self::Hub(hub) => hub.look(file).await,
            Self::Web(web) => web.look(file).await,
            Self::Store { store, dir } => match store.head(&dir.clone().join(file)).await {
                Ok(meta) => {
                    let version = meta.e_tag.or(meta.version);
                    Ok(Some(Announced { bytes: meta.size, version, sha256: None }))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(causes(&error)),
            },
        }
    }

    /// Reads a file that was looked at. That it is the same still is asked of who can tell.
    pub(crate) async fn read(&self, file: &str, announced: &Announced) -> Result<Pieces, String> {
        match self {
            Self::Hub(hub) => hub.read(file, announced).await,
            Self::Web(web) => web.read(file, announced).await,
            Self::Store { store, dir } => {
                let got = store.get_opts(&dir.clone().join(file), GetOptions::default()).await;
                let got = got.map_err(|error| causes(&error))?;
                let version = got.meta.e_tag.clone().or(got.meta.version.clone());
                if version != announced.version {
                    return Err("it has changed since it was looked at".to_owned());
                }
                Ok(got.into_stream().map(|piece| piece.map_err(|error| causes(&error))).boxed())
            }
        }
    }
}

/// The body of an answer that is what was announced.
pub(crate) fn pieces(answer: HttpResponse, announced: &Announced) -> Result<Pieces, String> {
    if answer.status() != ::http::StatusCode::OK {
        return Err(answer.status().to_string());
    }
    let length = text(answer.headers(), ::http::header::CONTENT_LENGTH.as_str());
    if length.is_some_and(|length| length.parse() != Ok(announced.bytes)) {
        return Err("it has changed since it was looked at".to_owned());
    }
    let body = answer.into_body().bytes_stream();
    Ok(body.map(|piece| piece.map_err(|error| causes(&error))).boxed())
}

/// An error with its causes.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_told = cause.to_string();
        // Many an error repeats its cause.
        if !told.contains(&cause_told) {
            told = format!("{told}: {cause_told}");
        }
        next = cause.source();
    }
    told
}
