//! Which tokens run next, and which KV blocks hold them.
//!
//! There is no prefill phase and no decode phase: a sequence has tokens computed and tokens wanted,
//! and chunked prefill, prefix hits, decoding and recomputing after a preemption are one
//! subtraction. [`Scheduler::schedule`] plans a step, [`Scheduler::update`] takes its result.
//!
//! Parts: [`scheduler`] (queues and steps), [`block_pool`] (references, prefix cache, eviction),
//! [`block_hash`] (what makes two blocks equal), [`output`] (plain data), [`config`] (limits).
//! Knows no tensors, threads, clocks or randomness, so that a test can run a million steps.

#![forbid(unsafe_code)]

pub mod block_hash;
pub mod block_pool;
pub mod config;
pub mod output;
pub mod scheduler;
#[cfg(test)]
mod simulation;

pub use block_hash::BlockHash;
pub use config::{ConfigError, SchedulerConfig};
pub use output::{NewSequence, ScheduledSequence, SchedulerOutput, SchedulerStats, SeqId};
pub use scheduler::{AddError, Scheduler};
