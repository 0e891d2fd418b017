//! `x-request-id`: a client's own comes back on every answer, an error's too; else answers of models
//! have the receipt's id there. Never names a receipt by what a client chose.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that comes back, in bytes; a longer one is left out.
const BYTES_MAX: usize = 256;

/// Gives the client's id back.
pub(crate) async fn echo(request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID).cloned();
    let mut response = next.run(request).await;
    if let Some(given) = given.filter(|given| (1..=BYTES_MAX).contains(&given.len())) {
        response.headers_mut().insert(X_REQUEST_ID, given);
    }
    response
}

/// Names the receipt of an answer, for clients that gave no id of their own.
pub(crate) fn set(response: &mut Response, id: &request::RequestId) {
    // An id is of our making: letters, digits and a hyphen.
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
}
