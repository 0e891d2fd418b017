//! Which tokens run next, and which KV blocks hold them.
//!
//! There is no prefill phase and no decode phase: a sequence has tokens computed and tokens wanted,
//! and chunked prefill, prefix hits, decoding and recomputing after a preemption are one
//! subtraction. [`Scheduler::schedule`] plans a step, [`Scheduler::update`] takes its result.
//!
//! Parts: [`scheduler`] (arrivals, departures, results), `plan` (one step), [`fair`] (whose turn it
//! is), `sequence` (tokens and blocks of one), [`block_pool`] (references, prefix cache, eviction),
//! [`block_hash`] (what makes two blocks equal), [`output`] (plain data), [`config`] (limits).
//! Knows no tensors, threads, clocks or randomness, so that a test can run a million steps.

#![forbid(unsafe_code)]

pub mod block_hash;
pub mod block_pool;
pub mod config;
pub mod fair;
pub mod output;
mod plan;
pub mod scheduler;
mod sequence;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use block_hash::BlockHash;
pub use config::{ConfigError, SchedulerConfig};
pub use fair::{Party, PartyKey};
pub use output::{
    NewSequence, ScheduledSequence, SchedulerOutput, SchedulerStats, SeqId, StepCost, StepLimits,
};
pub use scheduler::{AddError, Scheduler};
