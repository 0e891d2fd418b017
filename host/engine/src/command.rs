//! What the door sends to the thread.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::stream::{EngineEvent, EngineRequest};

/// What the door asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Job>),
    /// Answer once nothing waits or runs.
    Drain(oneshot::Sender<()>),
    Shutdown,
}

/// A request with the way back.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: EngineRequest,
    pub(crate) sender: mpsc::Sender<EngineEvent>,
    pub(crate) arrived: Instant,
}
