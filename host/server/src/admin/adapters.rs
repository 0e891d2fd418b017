//! Loading, unloading, finding and listing adapters.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::admin::AdminState;
use crate::assemble::adapters::{AdapterView, ScanView};
use crate::http::{ApiError, JsonBody, PathName, blocking};

/// `{"name", "path"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadBody {
    name: String,
    /// A PEFT directory on the server's machine, or an address below an `adapter_source`.
    path: PathBuf,
}

#[derive(Debug, Serialize)]
pub(crate) struct AdapterList {
    adapters: Vec<AdapterView>,
}

/// `GET /admin/adapters`
pub(crate) async fn list(State(state): State<AdminState>) -> Json<AdapterList> {
    Json(AdapterList { adapters: state.adapters.list() })
}

/// `POST /admin/adapters`
pub(crate) async fn load(
    State(state): State<AdminState>,
    JsonBody(body): JsonBody<LoadBody>,
) -> Result<Json<AdapterView>, ApiError> {
    let adapters = Arc::clone(&state.adapters);
    let files = adapters.files(&body.name, body.path, true).await?;
    blocking(move || Ok(adapters.load(&body.name, files)?)).await
}

/// `POST /admin/scan`
pub(crate) async fn scan(State(state): State<AdminState>) -> Result<Json<ScanView>, ApiError> {
    let adapters = Arc::clone(&state.adapters);
    blocking(move || Ok(adapters.scan()?)).await
}

/// `DELETE /admin/adapters/{name}`
pub(crate) async fn unload(
    State(state): State<AdminState>,
    PathName(name): PathName,
) -> Result<Json<AdapterView>, ApiError> {
    let adapters = Arc::clone(&state.adapters);
    blocking(move || Ok(adapters.unload(&name)?)).await
}
