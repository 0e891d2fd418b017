//! Loading, unloading and listing adapters.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use lora::LoraError;
use serde::{Deserialize, Serialize};

use crate::admin::{AdminState, blocking};
use crate::assemble::adapters::{AdapterError, AdapterView};
use crate::http::{ApiError, JsonBody};

/// `{"name", "path"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadBody {
    name: String,
    /// A PEFT directory on the server's machine.
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
    blocking(move || adapters.load(&body.name, &body.path).map_err(refused)).await
}

/// `DELETE /admin/adapters/{name}`
pub(crate) async fn unload(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<AdapterView>, ApiError> {
    let adapters = Arc::clone(&state.adapters);
    blocking(move || adapters.unload(&name).map_err(refused)).await
}

fn refused(error: AdapterError) -> ApiError {
    let message = error.to_string();
    match error {
        AdapterError::NameTaken { .. } => ApiError::invalid_param("name", message),
        AdapterError::Lora(LoraError::Unknown { .. }) => ApiError::not_found(message),
        _ => ApiError::invalid(message).with_code("adapter_refused"),
    }
}
