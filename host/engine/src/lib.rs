//! One thread that owns the model: schedule, execute, sample, update.
//!
//! Parts: [`handle`] (the async door), [`stream`] (what goes through it), [`config`], [`error`], [`metrics`], `worker` (the thread's
//! loop), `step` (one step), `sampler` (logits to token), `sequence` (what a running request keeps).
//!
//! No foreign code runs here and the engine does not know that plugins exist. It has no text: stop
//! strings are the pipeline's, stop tokens are the engine's. KV memory is allocated at the start.

#![forbid(unsafe_code)]

mod command;
pub mod config;
pub mod error;
pub mod handle;
pub mod metrics;
mod sampler;
mod sequence;
mod shared;
mod step;
pub mod stream;
mod worker;

pub use config::EngineConfig;
pub use error::{EngineError, SubmitError};
pub use handle::{Engine, EngineHandle};
pub use metrics::EngineMetrics;
pub use shared::EngineStats;
pub use stream::{EngineEvent, EngineRequest, OutputStream};
