//! The end of a server: no new requests, the running ones to their end, every receipt to disk.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::listener::Serving;
use crate::assemble::Parts;

/// Longest wait for the receipts of requests that were cut off, in seconds.
const CUT_OFF_S_MAX: u64 = 5;

/// Lets running requests finish for at most `seconds`. The listeners stay open meanwhile, so that
/// probes and new requests are told 503 instead of nothing. The engine comes last: an agent that
/// runs may still ask it for answers.
pub(super) async fn run(
    parts: &Parts,
    draining: &AtomicBool,
    listeners: [Serving; 2],
    seconds: u64,
) -> Result<ExitCode> {
    draining.store(true, Ordering::Relaxed);
    let cuts = listeners.each_ref().map(Serving::cut);
    let finish = async {
        parts.pipeline.idle().await;
        for listener in listeners {
            listener.close().await;
        }
        // A request that was on its way in when the drain began.
        parts.pipeline.idle().await;
        parts.engine.drain().await;
    };
    if tokio::time::timeout(Duration::from_secs(seconds), finish).await.is_err() {
        tracing::warn!(seconds, "requests still ran at the end of the drain and were cut off");
        cuts.iter().for_each(CancellationToken::cancel);
        parts.engine.shutdown();
        let receipts = parts.pipeline.idle();
        if tokio::time::timeout(Duration::from_secs(CUT_OFF_S_MAX), receipts).await.is_err() {
            tracing::error!("some requests that were cut off have no receipt");
        }
    }
    parts.ledger.close();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
