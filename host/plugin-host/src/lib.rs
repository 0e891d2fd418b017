//! Plugins: sandboxed WebAssembly components that act on requests, one typed call per hook.
//!
//! Parts: [`manifest`] (what a plugin says of itself), [`config`] (limits and the operator's
//! policies), [`capability`] (what the embedder lends), [`types`] (what crosses a hook), [`fault`]
//! (how plugins fail), [`error`] (how the host refuses); [`PluginHost`] installs and swaps,
//! [`Chain`] is what a request pins, [`Plugin`] and [`StreamFilter`] have the typed calls.
//!
//! This crate is the only owner of wasmtime; neither its types nor the generated ones leave. It
//! never sees a tensor, never lends a guest more than was granted, never enters an instance again
//! that trapped, and gives no guest any WASI.

#![forbid(unsafe_code)]

mod agent;
mod bindings;
pub mod capability;
mod chain;
mod clock;
pub mod config;
mod convert;
pub mod error;
pub mod fault;
pub mod file;
mod guest;
mod host;
mod imports;
mod install;
mod instance;
mod limiter;
pub mod manifest;
mod metrics;
mod plugin;
mod registry;
mod runtime;
mod stream;
mod summary;
pub mod types;

pub use capability::{
    AgentContext, Capabilities, Capability, CapabilityError, CorpusCapability, GenerateCapability,
    TokenizerCapability,
};
pub use chain::Chain;
pub use config::{CallLimits, HostConfig, ImportLimits, KindLimits, OnFailure, PluginPolicy};
pub use error::{HostError, ImportRefusal, InstallError, ManifestError, SwapError};
pub use fault::{FaultKind, PluginFault};
pub use host::PluginHost;
pub use manifest::{Manifest, PluginKind};
pub use metrics::HostMetrics;
pub use plugin::Plugin;
pub use stream::StreamFilter;
pub use summary::{PluginState, PluginSummary};
pub use types::{
    Candidate, Completion, CorpusInfo, Evidence, EvidenceSpan, GenerateCall, PreprocessOutcome,
    Reject, RequestInfo, RouteDecision, SHARES_TOTAL, SamplingView, Share, StreamAction,
};
