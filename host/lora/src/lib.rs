//! Adapters: PEFT's files, what they are, who holds them.
//!
//! Parts: [`config`] (`adapter_config.json`, and which modules it targets), [`files`] (the tensors),
//! [`adapter`] (immutable weights, named by content), [`registry`] (alias, generation, lease,
//! budget), [`shape`] (what a base model offers to attach to).
//!
//! This crate never merges weights into a base model, never applies a part of an adapter it can't
//! apply whole, and knows no architecture.

#![forbid(unsafe_code)]

pub mod adapter;
pub mod config;
pub mod error;
pub mod files;
pub mod registry;
pub mod shape;

pub use adapter::Adapter;
pub use error::LoraError;
pub use registry::{AdapterInfo, Lease, Registry, RegistryConfig};
pub use shape::{ModelShape, ModuleShape};

#[cfg(test)]
mod testing;
