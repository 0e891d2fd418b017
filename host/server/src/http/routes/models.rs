//! `/v1/models`: the base first, then adapters, then agents.

use axum::Json;
use axum::extract::State;
use pipeline::{ModelCard, ModelKind};
use serde::Serialize;

use crate::http::auth::Tenant;
use crate::http::error::ApiError;
use crate::http::path_name::PathName;
use crate::http::state::PublicState;

/// A model on the wire. `root` and `parent` are as vLLM has them.
#[derive(Debug, Serialize)]
pub(crate) struct ModelWire {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<usize>,
    /// Identity of an adapter's content, or an agent's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelWire>,
}

/// `GET /v1/models`
pub(crate) async fn list(State(state): State<PublicState>, _tenant: Tenant) -> Json<ModelList> {
    let data = state.pipeline.models().into_iter().map(|card| wire(&state, card)).collect();
    Json(ModelList { object: "list", data })
}

/// `GET /v1/models/{id}`
pub(crate) async fn one(
    State(state): State<PublicState>,
    _tenant: Tenant,
    PathName(id): PathName,
) -> Result<Json<ModelWire>, ApiError> {
    let card = state.pipeline.models().into_iter().find(|card| card.id == id);
    card.map(|card| Json(wire(&state, card))).ok_or_else(|| ApiError::model_not_found(&id))
}

fn wire(state: &PublicState, card: ModelCard) -> ModelWire {
    let (parent, generation) = match card.kind {
        ModelKind::Base => (None, Some(state.pipeline.base().digest.to_string())),
        // Where the adapter lies is the operator's business, not the client's.
        ModelKind::Adapter { generation, parent, path: _ } => (Some(parent), generation),
        ModelKind::Agent { version } => (None, Some(version)),
    };
    ModelWire {
        root: card.id.clone(),
        id: card.id,
        object: "model",
        created: 0,
        owned_by: "mortise",
        parent,
        max_model_len: Some(state.pipeline.base().context_tokens),
        generation,
    }
}
