//! What was used, for those who write bills: by adapter and tenant, since the process began.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pipeline::{UsageBook, UsageReport, UsageRow, Used};
use serde::Serialize;

use super::AdminState;
use crate::http::{ApiError, blocking};

/// Where usage is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageSource {
    pub(crate) book: Arc<UsageBook>,
    pub(crate) base_name: Arc<str>,
    /// When the book was opened, in seconds since 1970.
    pub(crate) since: u64,
}

/// `GET /admin/usage`
#[derive(Debug, Serialize)]
pub(super) struct UsageWire {
    /// When counting began, in seconds since 1970.
    since: u64,
    total: UsedWire,
    base: RowWire,
    adapters: Vec<RowWire>,
    /// Adapters beyond the number that have rows.
    other_adapters: RowWire,
}

#[derive(Debug, Serialize)]
struct RowWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    used: UsedWire,
    loads: u64,
    loaded_bytes: u64,
    tenants: Vec<TenantWire>,
    /// Tenants beyond the number that have rows.
    other_tenants: UsedWire,
}

#[derive(Debug, Serialize)]
struct TenantWire {
    tenant: String,
    #[serde(flatten)]
    used: UsedWire,
}

#[derive(Debug, Serialize)]
struct UsedWire {
    requests: u64,
    blended_requests: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
    queue_seconds: f64,
    compute_seconds: f64,
}

impl From<Used> for UsedWire {
    fn from(used: Used) -> Self {
        Self {
            requests: used.requests,
            blended_requests: used.blended_requests,
            prompt_tokens: used.prompt_tokens,
            cached_tokens: used.cached_tokens,
            generated_tokens: used.generated_tokens,
            queue_seconds: used.queued.as_secs_f64(),
            compute_seconds: used.computed.as_secs_f64(),
        }
    }
}

impl RowWire {
    fn new(name: Option<String>, row: UsageRow) -> Self {
        let tenant = |(tenant, used): (String, Used)| TenantWire { tenant, used: used.into() };
        Self {
            name,
            used: row.used.into(),
            loads: row.loads.count,
            loaded_bytes: row.loads.bytes,
            tenants: row.tenants.into_iter().map(tenant).collect(),
            other_tenants: row.other_tenants.into(),
        }
    }
}

/// What every adapter has used.
pub(super) async fn usage(State(state): State<AdminState>) -> Result<Json<UsageWire>, ApiError> {
    // Sorting and copying tens of thousands of rows takes a while.
    blocking(move || {
        let UsageSource { book, base_name, since } = state.usage;
        let UsageReport { total, base, adapters, other_adapters } = book.report();
        let base = RowWire::new(Some(base_name.to_string()), base);
        let rows = adapters.into_iter().map(|(name, row)| RowWire::new(Some(name), row));
        Ok(UsageWire {
            since,
            total: total.into(),
            base,
            adapters: rows.collect(),
            other_adapters: RowWire::new(None, other_adapters),
        })
    })
    .await
}
