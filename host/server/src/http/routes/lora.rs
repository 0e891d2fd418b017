//! Adapters at run time as vLLM has them: on the admin listener always, on the public one where the
//! operator allows it. Loads from nowhere but below the configured roots and sources.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use lora::LoraError;
use serde::{Deserialize, Serialize};
use sources::SourceError;

use crate::assemble::adapters::{AdapterError, AdapterView, Adapters};
use crate::http::state::HttpLimits;
use crate::http::{ApiError, JsonBody, blocking};

/// `/v1/load_lora_adapter`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    lora_name: String,
    lora_path: PathBuf,
    /// Whether a name that is taken moves to what is loaded.
    #[serde(default)]
    load_inplace: bool,
}

/// `/v1/unload_lora_adapter`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnloadBody {
    lora_name: String,
    /// vLLM's number of an adapter, which means nothing here.
    #[serde(default, rename = "lora_int_id")]
    _lora_int_id: Option<i64>,
}

/// An adapter in a list.
#[derive(Debug, Serialize)]
struct AdapterWire {
    id: String,
    object: &'static str,
    #[serde(flatten)]
    view: AdapterView,
}

#[derive(Debug, Serialize)]
struct AdapterList {
    object: &'static str,
    data: Vec<AdapterWire>,
}

/// The three routes, for a listener that has checked who asks.
pub(crate) fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Adapters>: FromRef<S>,
    HttpLimits: FromRef<S>,
{
    Router::new()
        .route("/v1/lora_adapters", get(list))
        .route("/v1/load_lora_adapter", post(load))
        .route("/v1/unload_lora_adapter", post(unload))
}

async fn list(State(adapters): State<Arc<Adapters>>) -> Json<AdapterList> {
    let wire = |view: AdapterView| {
        let (id, object) = (view.name.clone(), "lora_adapter");
        AdapterWire { id, object, view }
    };
    Json(AdapterList { object: "list", data: adapters.list().into_iter().map(wire).collect() })
}

async fn load(
    State(adapters): State<Arc<Adapters>>,
    JsonBody(body): JsonBody<LoadBody>,
) -> Result<String, ApiError> {
    let LoadBody { lora_name, lora_path, load_inplace } = body;
    if lora_name.is_empty() || lora_path.as_os_str().is_empty() {
        return Err(ApiError::invalid("both 'lora_name' and 'lora_path' must be provided"));
    }
    let files = adapters.files(&lora_name, lora_path, load_inplace).await?;
    let name = lora_name.clone();
    let load = move || Ok(adapters.load_below_roots(&name, files, load_inplace)?);
    drop(blocking(load).await?);
    Ok(format!("Success: LoRA adapter '{lora_name}' added successfully."))
}

async fn unload(
    State(adapters): State<Arc<Adapters>>,
    JsonBody(body): JsonBody<UnloadBody>,
) -> Result<String, ApiError> {
    let name = body.lora_name.clone();
    drop(blocking(move || Ok(adapters.unload(&name)?)).await?);
    Ok(format!("Success: LoRA adapter '{}' removed successfully.", body.lora_name))
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = error.to_string();
        match error {
            AdapterError::NameTaken { .. } | AdapterError::AlreadyLoaded { .. } => {
                Self::invalid_param("name", message)
            }
            AdapterError::OutsideRoots { .. } => Self::invalid_param("lora_path", message),
            AdapterError::Timeout { .. } | AdapterError::Lora(LoraError::Busy { .. }) => {
                Self::unavailable(&message)
            }
            AdapterError::Source(error) => source(&error, message),
            AdapterError::Lora(LoraError::Unknown { .. }) => Self::not_found(message),
            _ => Self::invalid(message).with_code("adapter_refused"),
        }
    }
}

/// What could not be fetched: the caller's mistake, this server's bounds, or the other side's fault.
fn source(error: &SourceError, message: String) -> ApiError {
    match error {
        SourceError::NotAllowed { .. } | SourceError::Location { .. } => {
            ApiError::invalid_param("lora_path", message)
        }
        SourceError::Busy { .. } | SourceError::CacheFull { .. } | SourceError::Timeout { .. } => {
            ApiError::unavailable(&message)
        }
        SourceError::Cache { .. } => ApiError::internal(error),
        _ => ApiError::invalid_param("lora_path", message).with_code("adapter_not_fetched"),
    }
}
