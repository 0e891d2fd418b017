//! One thread that owns the model: schedule, execute, sample, update.
//!
//! Parts: [`handle`] (the async door), [`stream`] (what goes through it), `admission` (the bounds of
//! the queue), [`config`], [`error`], [`metrics`], `worker` (the thread's loop), `step` (one step),
//! `pace` (how long steps take and may take), `ngram` and `speculation` (guesses, and whether they
//! pay), [`logits`] and `sampler` (logits to token), `pooling` (hidden states to their mean),
//! [`constraint`] (masks from outside), `sequence` (what a running request keeps), `course` (what of it is
//! told while it runs).
//!
//! No foreign code runs here and the engine does not know that plugins exist. It has no text: stop
//! strings are the pipeline's, stop tokens are the engine's. KV memory is allocated at the start.

#![forbid(unsafe_code)]

mod admission;
mod command;
pub mod config;
pub mod constraint;
mod course;
pub mod error;
pub mod handle;
pub mod logits;
pub mod metrics;
mod ngram;
mod pace;
mod pooling;
mod sampler;
mod sequence;
mod shared;
mod speculation;
mod step;
pub mod stream;
mod worker;

pub use config::{EngineConfig, SpeculativeConfig, SpeculativeMethod};
pub use constraint::{Constraint, ConstraintDriver, Mask, constraint};
pub use course::Timing;
pub use error::{EngineError, SubmitError};
pub use handle::{Engine, EngineHandle};
pub use logits::{DevicePlace, LogitsPlace};
pub use metrics::EngineMetrics;
pub use shared::EngineStats;
pub use stream::{EngineEvent, EngineRequest, OutputStream, Progress};
