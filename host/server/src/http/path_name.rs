//! The name in a request's path, percent-decoded; one that is no text is refused as every other bad
//! request is.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;

/// What stands for `{...}` in a route with one such part.
#[derive(Debug)]
pub(crate) struct PathName(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = Path::from_request_parts(parts, state).await;
        found.map(|Path(name)| Self(name)).map_err(|error| ApiError::invalid(error.body_text()))
    }
}
