//! `/v1/receipts/{id}`: the receipt of an answer, for whoever asked.

use axum::Json;
use axum::extract::State;

use crate::http::auth::Tenant;
use crate::http::error::ApiError;
use crate::http::path_name::PathName;
use crate::http::state::PublicState;

/// `GET /v1/receipts/{id}`. Another tenant's receipt is not found, as one that does not exist.
pub(crate) async fn one(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    PathName(id): PathName,
) -> Result<Json<ledger::Receipt>, ApiError> {
    let (ledger, wanted) = (state.ledger, id.clone());
    let read = tokio::task::spawn_blocking(move || ledger.get(&wanted)).await;
    let found = read.map_err(|error| ApiError::internal(&error))?;
    let receipt = found.map_err(|error| ApiError::internal(&error))?;
    receipt
        .filter(|receipt| receipt.entry.tenant == tenant)
        .map(Json)
        .ok_or_else(|| ApiError::not_found(format!("there is no receipt `{id}`")))
}
