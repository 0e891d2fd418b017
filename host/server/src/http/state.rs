//! What every handler shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRef;
use prometheus_client::registry::Registry;
use tokenization::ToolCallFormat;

use super::auth::Keys;
use super::error::ApiError;
use crate::assemble::adapters::Adapters;
use crate::telemetry::Telemetry;

/// Limits of the public listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HttpLimits {
    /// Largest request body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// Longest time a request body may take to arrive, in seconds.
    pub(crate) body_read_s_max: u64,
    /// Most prompts of one `/v1/completions`.
    pub(crate) prompts_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { body_bytes_max: 2 << 20, body_read_s_max: 30, prompts_max: 32 }
    }
}

/// What every handler of the public listener shares.
#[derive(Clone)]
pub(crate) struct PublicState {
    pub(crate) pipeline: pipeline::Pipeline,
    pub(crate) engine: engine::EngineHandle,
    pub(crate) ledger: Arc<ledger::Ledger>,
    /// `None` serves everybody as the tenant `default`.
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) limits: HttpLimits,
    pub(crate) metrics: Arc<Registry>,
    pub(crate) adapters: Arc<Adapters>,
    /// Whether clients may load and unload adapters.
    pub(crate) runtime_adapters: bool,
    /// How the model calls tools of its own accord, if that is known.
    pub(crate) tool_calls: Option<ToolCallFormat>,
    /// Who observes requests, if anybody does.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    /// Set once the process has been told to stop.
    pub(crate) draining: Arc<AtomicBool>,
}

impl PublicState {
    /// Why no answer could be finished now, if none could: whoever probes is to restart the process.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !self.engine.is_alive() {
            return Some("the engine has stopped");
        }
        self.ledger.is_poisoned().then_some("receipts can't be written any more")
    }

    /// Whether an answer that is begun now can be finished: one without a receipt is none.
    ///
    /// # Errors
    /// 503 with the reason.
    pub(crate) fn admit(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::unavailable("the server is draining"));
        }
        self.fault().map_or(Ok(()), |fault| Err(ApiError::unavailable(fault)))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl FromRef<PublicState> for Arc<Adapters> {
    fn from_ref(state: &PublicState) -> Self {
        Arc::clone(&state.adapters)
    }
}

impl FromRef<PublicState> for Option<Arc<Telemetry>> {
    fn from_ref(state: &PublicState) -> Self {
        state.telemetry.clone()
    }
}

impl FromRef<PublicState> for HttpLimits {
    fn from_ref(state: &PublicState) -> Self {
        state.limits
    }
}

impl FromRef<PublicState> for Option<Arc<Keys>> {
    fn from_ref(state: &PublicState) -> Self {
        state.keys.clone()
    }
}
