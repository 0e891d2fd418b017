//! Why a request could not be answered. The server alone turns this into a status code.

use ::request::SamplingError;

/// A request's failure. Each variant names what was wrong, for the client; details that are not
/// the client's business go to the log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Nobody of that name.
    #[error("the model `{model}` does not exist")]
    ModelNotFound {
        /// As the client wrote it.
        model: String,
    },
    /// A parameter out of its bounds.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// Some other part of the request is not acceptable.
    #[error("{message}")]
    Invalid {
        /// Name of the field on the wire.
        param: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Prompt and answer do not fit the model's context.
    #[error(
        "this model's maximum context length is {context_tokens} tokens; the request has \
         {prompt_tokens} in the prompt and asks for {max_tokens} more"
    )]
    ContextOverflow {
        /// Tokens in the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: u32,
        /// The model's limit.
        context_tokens: usize,
    },
    /// The queue is full.
    #[error("the server is at capacity; retry after {retry_after_s} s")]
    Overloaded {
        /// Seconds until a retry may succeed.
        retry_after_s: u32,
    },
    /// It waited for as long as it may and did not run.
    #[error("the request did not run within {waited_ms} ms; the server is at capacity")]
    Expired {
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The adapter is there, and can't be had now.
    #[error("the adapter `{adapter}` is not available: {reason}")]
    AdapterUnavailable {
        /// Its alias.
        adapter: String,
        /// Why, in one phrase that names no files.
        reason: String,
        /// Seconds until a retry may succeed.
        retry_after_s: u32,
    },
    /// The server takes no more requests.
    #[error("the server is draining")]
    Draining,
    /// A plugin's answer of policy.
    #[error("{message}")]
    Rejected {
        /// The plugin.
        plugin: String,
        /// HTTP status it chose, checked to be 400 to 499 or 503.
        status: u16,
        /// Machine-readable reason.
        code: String,
        /// For the reader.
        message: String,
        /// When to try again.
        retry_after_ms: Option<u32>,
    },
    /// A plugin whose failure policy is `reject` failed.
    #[error("the plugin `{plugin}` failed: {reason}")]
    PluginFailed {
        /// The plugin.
        plugin: String,
        /// Kind of fault, in one phrase.
        reason: String,
    },
    /// Ours. The message is for the log; clients are told that it is internal.
    #[error("internal error: {message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

impl PipelineError {
    /// It waited for so long and did not run.
    pub(crate) fn expired(waited: std::time::Duration) -> Self {
        Self::Expired { waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
    }
}
