//! What the door sends to the thread.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::admission::Ticket;
use crate::constraint::Constraint;
use crate::course::Course;
use crate::stream::{EngineEvent, EngineRequest};

/// What the door asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Job>),
    /// Answer once nothing waits or runs.
    Drain(oneshot::Sender<()>),
    Shutdown,
}

/// What is wanted of a sequence.
#[derive(Debug)]
pub(crate) enum Task {
    /// Tokens, within what a constraint allows.
    Generate(Option<Constraint>),
    /// The mean of the prompt's hidden states, and no token.
    Pool,
}

/// A request with the way back.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: EngineRequest,
    pub(crate) task: Task,
    pub(crate) sender: mpsc::Sender<EngineEvent>,
    /// What is told as soon as it is known.
    pub(crate) course: Arc<Course>,
    pub(crate) arrived: Instant,
    /// Its place in the queue.
    pub(crate) ticket: Ticket,
}
