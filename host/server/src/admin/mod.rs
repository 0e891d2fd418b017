//! The admin API, on a listener of its own: adapters and plugins come and go, and the server drains.
//! Every call needs the bearer token. A refused change has changed nothing.

mod adapters;
mod plugins;
mod usage;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use plugin_host::PluginHost;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::assemble::adapters::Adapters;
use crate::assemble::token::Token;
pub(crate) use usage::UsageSource;

use crate::http::{ApiError, HttpLimits, bearer, lora_router, unknown, wrong_method};

/// What handlers of the admin listener share.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) adapters: Arc<Adapters>,
    pub(crate) plugins: Arc<PluginHost>,
    pub(crate) usage: UsageSource,
    pub(crate) token: Arc<Token>,
    pub(crate) limits: HttpLimits,
    /// Notified to drain the process.
    pub(crate) drain: Arc<Notify>,
}

impl FromRef<AdminState> for HttpLimits {
    fn from_ref(state: &AdminState) -> Self {
        state.limits
    }
}

impl FromRef<AdminState> for Arc<Adapters> {
    fn from_ref(state: &AdminState) -> Self {
        Arc::clone(&state.adapters)
    }
}

/// The admin listener's routes.
pub(crate) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/admin/health", get(health))
        .route("/admin/adapters", get(adapters::list).post(adapters::load))
        .route("/admin/scan", post(adapters::scan))
        .route("/admin/adapters/{name}", delete(adapters::unload))
        .route("/admin/plugins", get(plugins::list).post(plugins::install))
        .route("/admin/plugins/{name}/activate", post(plugins::activate))
        .route("/admin/plugins/{name}/rollback", post(plugins::rollback))
        .route("/admin/plugins/{name}/deactivate", post(plugins::deactivate))
        .route("/admin/usage", get(usage::usage))
        .route("/admin/drain", post(drain))
        .merge(lora_router())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), authenticate))
        .with_state(state)
}

/// Lets nobody pass without the token, whatever the path.
async fn authenticate(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !bearer(request.headers()).is_some_and(|token| state.token.matches(token)) {
        return Err(ApiError::no_admin_token());
    }
    Ok(next.run(request).await)
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Tells the process to drain; it ends when running requests have.
async fn drain(State(state): State<AdminState>) -> (StatusCode, Json<Value>) {
    tracing::info!("told to drain by the admin API");
    state.drain.notify_one();
    (StatusCode::ACCEPTED, Json(json!({ "status": "draining" })))
}

#[cfg(test)]
mod tests;
