//! Adapters: PEFT's files, what they are, who holds them.
//!
//! Parts: [`config`] (`adapter_config.json`, and which modules it targets), `header` and [`files`]
//! (the tensors), `index` (what is known without them), [`adapter`] (immutable weights, named by
//! content), `blend` (several adapters as one), `tier` (what is in memory, who
//! may be evicted), `seen` (files that need not be hashed again), [`registry`] (alias, generation, lease,
//! loader threads, the folder of adapters), [`shape`] (what a base model offers to attach to).
//!
//! This crate never merges weights into a base model, never applies a part of an adapter it can't
//! apply whole, and knows no architecture.

#![forbid(unsafe_code)]

pub mod adapter;
mod blend;
pub mod config;
pub mod error;
pub mod files;
mod header;
mod index;
mod metrics;
pub mod registry;
mod seen;
pub mod shape;
mod tier;

pub use adapter::Adapter;
pub use error::LoraError;
pub use metrics::RegistryMetrics;
pub use registry::{
    Acquire, AdapterInfo, Folder, Lease, LeasePart, LoadObserver, Registry, RegistryConfig,
    Residence, Scan,
};
pub use shape::{ModelShape, ModuleShape};

#[cfg(test)]
mod testing;
