//! Paths and what answers them.

mod embeddings;
mod generate;
mod lora;
mod models;
mod receipts;
mod responses;
mod status;
mod tokens;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_extractor_with_state, from_fn};
use axum::routing::{get, post};

use super::auth::Tenant;
use super::error::ApiError;
use super::request_id;
use super::state::PublicState;
pub(crate) use lora::router as lora_router;

/// The public listener's routes.
pub(crate) fn router(state: PublicState) -> Router {
    let runtime_adapters = match state.runtime_adapters {
        true => {
            lora_router().layer(from_extractor_with_state::<Tenant, PublicState>(state.clone()))
        }
        false => Router::new(),
    };
    Router::new()
        .merge(runtime_adapters)
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/receipts/{id}", get(receipts::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(status::health))
        .route("/ping", get(status::health).post(status::health))
        .route("/ready", get(status::ready))
        .route("/version", get(status::version))
        .route("/metrics", get(status::metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(request_id::echo))
        .with_state(state)
}

/// Answers a path that is not there.
pub(crate) async fn unknown(request: Request) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", request.uri().path()))
}

/// Answers a method that a path does not have.
pub(crate) async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method(), request.uri().path())
}
