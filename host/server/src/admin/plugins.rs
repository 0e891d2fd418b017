//! Installing, swapping and listing plugins.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::{FromRequest, Request, State};
use plugin_host::{PluginHost, PluginSummary, SwapError};
use serde::{Deserialize, Serialize};

use crate::admin::AdminState;
use crate::http::{ApiError, JsonBody, PathName, blocking};

/// `{"path"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallBody {
    /// A folder on the server's machine that holds a `plugin.toml`.
    path: PathBuf,
}

/// `{"version"}`; without it, or without a body, the version installed last.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActivateBody {
    version: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PluginList {
    plugins: Vec<PluginSummary>,
}

/// `GET /admin/plugins`
pub(crate) async fn list(State(state): State<AdminState>) -> Json<PluginList> {
    Json(PluginList { plugins: state.plugins.list() })
}

/// `POST /admin/plugins`. Compiles, checks and tries the plugin; activates nothing.
pub(crate) async fn install(
    State(state): State<AdminState>,
    JsonBody(body): JsonBody<InstallBody>,
) -> Result<Json<PluginSummary>, ApiError> {
    let plugins = Arc::clone(&state.plugins);
    let install = move || {
        plugins.install(&body.path).map_err(|error| {
            tracing::warn!(path = %body.path.display(), %error, "a plugin was refused");
            ApiError::invalid(error.to_string()).with_code("plugin_refused")
        })
    };
    blocking(install).await
}

/// `POST /admin/plugins/{name}/activate`
pub(crate) async fn activate(
    State(state): State<AdminState>,
    PathName(name): PathName,
    request: Request,
) -> Result<Json<PluginSummary>, ApiError> {
    let version = match request.body().is_end_stream() {
        true => None,
        false => JsonBody::<ActivateBody>::from_request(request, &state).await?.0.version,
    };
    let change = move |plugins: &PluginHost| plugins.activate(&name, version.as_deref());
    swap(state, change).await
}

/// `POST /admin/plugins/{name}/rollback`
pub(crate) async fn rollback(
    State(state): State<AdminState>,
    PathName(name): PathName,
) -> Result<Json<PluginSummary>, ApiError> {
    swap(state, move |plugins| plugins.rollback(&name)).await
}

/// `POST /admin/plugins/{name}/deactivate`
pub(crate) async fn deactivate(
    State(state): State<AdminState>,
    PathName(name): PathName,
) -> Result<Json<PluginSummary>, ApiError> {
    swap(state, move |plugins| plugins.deactivate(&name)).await
}

async fn swap(
    state: AdminState,
    change: impl FnOnce(&PluginHost) -> Result<PluginSummary, SwapError> + Send + 'static,
) -> Result<Json<PluginSummary>, ApiError> {
    let plugins = Arc::clone(&state.plugins);
    let swap = move || {
        let summary = change(&plugins).map_err(refused)?;
        let (plugin, version) = (summary.name.as_str(), summary.version.as_str());
        tracing::info!(plugin, version, state = ?summary.state, "plugin swapped");
        Ok(summary)
    };
    blocking(swap).await
}

fn refused(error: SwapError) -> ApiError {
    let message = error.to_string();
    match error {
        SwapError::UnknownPlugin { .. } | SwapError::UnknownVersion { .. } => {
            ApiError::not_found(message)
        }
        _ => ApiError::invalid(message).with_code("swap_refused"),
    }
}
