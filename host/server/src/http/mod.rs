//! The public HTTP surface: OpenAI's wire format in front of [`pipeline::Pipeline`].
//!
//! Parts: [`state`] (what handlers share), [`auth`] (keys and tenants), [`error`] (every failure as
//! OpenAI's error object), [`body`] (JSON in, with the place of an error), `request_id` and `adapter_wait`
//! (headers), `wire` (shapes), `calls` (what in an answer is a call), `observed` (answers, observed),
//! `answer`, `stream` and `responses` (events of the pipeline to one object or to server-sent events),
//! `routes`.
//!
//! Decides nothing about models, plugins or credits, and holds no state of a request beyond its
//! connection: a dropped connection drops the pipeline's answer, which cancels the work.

mod adapter_wait;
mod answer;
mod auth;
mod body;
mod calls;
mod error;
mod observed;
mod path_name;
mod request_id;
mod responses;
mod routes;
mod state;
mod stream;
mod wire;

pub(crate) use auth::{Keys, bearer, hash_key};
pub(crate) use body::JsonBody;
pub(crate) use error::ApiError;
pub(crate) use path_name::PathName;
pub(crate) use routes::{lora_router, router, unknown, wrong_method};
pub(crate) use state::{HttpLimits, PublicState};

/// Runs what reads files, compiles or takes long away from the threads that serve. It is not abandoned
/// when the connection breaks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<axum::Json<T>, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))?.map(axum::Json)
}
