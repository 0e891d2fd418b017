//! The end of a server: no new requests, the running ones to their end, every receipt to disk.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::listener::Serving;
use crate::assemble::Parts;

/// Lets running requests finish for at most `seconds`. The listeners stay open until the engine is
/// idle, so that probes are told 503 instead of nothing.
pub(super) async fn run(
    parts: &Parts,
    draining: &AtomicBool,
    listeners: [Serving; 2],
    seconds: u64,
) -> Result<ExitCode> {
    draining.store(true, Ordering::Relaxed);
    let finish = async {
        parts.engine.drain().await;
        for listener in listeners {
            listener.close().await;
        }
        parts.pipeline.idle().await;
    };
    if tokio::time::timeout(Duration::from_secs(seconds), finish).await.is_err() {
        tracing::warn!(seconds, "requests still ran at the end of the drain and were cut off");
        parts.engine.shutdown();
        // Cut-off requests still get their receipts.
        parts.pipeline.idle().await;
    }
    parts.ledger.close();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
