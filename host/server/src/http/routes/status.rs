//! Whether the process lives, whether it takes requests, and what it counts.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::error::ApiError;
use crate::http::state::PublicState;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /health`: whether the engine runs and receipts can be written.
pub(crate) async fn health(State(state): State<PublicState>) -> Result<Json<Value>, ApiError> {
    if let Some(fault) = state.fault() {
        return Err(ApiError::unavailable(fault));
    }
    Ok(Json(json!({ "status": "ok" })))
}

/// `GET /ready`: whether to send requests here.
pub(crate) async fn ready(State(state): State<PublicState>) -> Result<Json<Value>, ApiError> {
    if state.is_draining() {
        return Err(ApiError::unavailable("the server is draining"));
    }
    health(State(state)).await
}

/// `GET /version`
pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /metrics`
pub(crate) async fn metrics(State(state): State<PublicState>) -> Result<Response, ApiError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.metrics)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}
