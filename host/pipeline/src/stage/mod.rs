//! The stages of one request, each in a file of its own; [`crate::pipeline`] orders them.

pub(crate) mod agent;
pub(crate) mod attribute;
mod combine;
pub(crate) mod constrain;
pub(crate) mod filters;
pub(crate) mod generate;
pub(crate) mod postprocess;
pub(crate) mod preprocess;
pub(crate) mod record;
pub(crate) mod route;
pub(crate) mod tokenize;

use crate::error::PipelineError;

/// Runs guest code or other blocking work off the async threads. Plugin deadlines bound it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PipelineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| PipelineError::Internal { message: format!("stage panicked: {error}") })
}
