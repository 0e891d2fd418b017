//! How a plugin failed: always by name, version and digest, never mixed with the host's own errors
//! and never with a plugin's policy answers.

use std::sync::Arc;

use request::Digest;

/// A call into a plugin that did not come to a valid result. The instance it happened in is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin}@{version} ({}): {kind}", digest.short())]
pub struct PluginFault {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Digest of its component.
    pub digest: Digest,
    /// What happened.
    pub kind: FaultKind,
}

/// What a plugin did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// It trapped.
    #[error("trapped in {hook}: {reason}")]
    Trapped {
        /// The call.
        hook: &'static str,
        /// The trap, and the innermost function if it has a name.
        reason: String,
    },
    /// It ran longer than its deadline.
    #[error("{hook} ran over its deadline of {limit_ms} ms")]
    DeadlineExceeded {
        /// The call.
        hook: &'static str,
        /// The limit that was reached.
        limit_ms: u64,
    },
    /// It wanted more memory or table elements than it may have, and gave up.
    #[error("{hook} ran into its limit of {limit} {unit}")]
    MemoryLimit {
        /// The call.
        hook: &'static str,
        /// The limit.
        limit: u64,
        /// `bytes of memory` or `table elements`.
        unit: &'static str,
    },
    /// It returned, or passed to an import, more than the host is willing to read.
    #[error("{hook} gave more than the limit of {limit_bytes} bytes")]
    OutputTooLarge {
        /// The call.
        hook: &'static str,
        /// The limit.
        limit_bytes: u64,
    },
    /// It returned an error of its own.
    #[error("{hook} failed with {code}: {message}")]
    Error {
        /// The call.
        hook: &'static str,
        /// The plugin's code.
        code: Box<str>,
        /// The plugin's message, cut at the host's limit.
        message: Box<str>,
    },
    /// The component does not fit the interface of its kind.
    #[error("incompatible: {reason}")]
    Incompatible {
        /// Which import or export, and how.
        reason: String,
    },
    /// It broke a rule that types cannot say, or its result was malformed.
    #[error("{hook} broke a rule: {rule}")]
    Broken {
        /// The call.
        hook: &'static str,
        /// The rule and how it was broken.
        rule: String,
    },
    /// Too many plugins run at once; not this plugin's doing.
    #[error("no free instance: {reason}")]
    Exhausted {
        /// Which pool.
        reason: String,
    },
    /// The stream was used after it had failed, stopped or finished.
    #[error("the stream has ended")]
    StreamEnded,
}

impl FaultKind {
    /// A word for metrics and receipts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Trapped { .. } => "trapped",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::MemoryLimit { .. } => "memory_limit",
            Self::OutputTooLarge { .. } => "output_too_large",
            Self::Error { .. } => "error",
            Self::Incompatible { .. } => "incompatible",
            Self::Broken { .. } => "broken",
            Self::Exhausted { .. } => "exhausted",
            Self::StreamEnded => "stream_ended",
        }
    }
}
