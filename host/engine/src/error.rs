//! Why the engine could not start, or did not take a request.

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A limit that can't be.
    #[error(transparent)]
    Config(#[from] scheduler::ConfigError),
    /// A setting that can't be.
    #[error(transparent)]
    Setting(#[from] crate::config::SettingError),
    /// The KV cache could not be allocated.
    #[error("allocate the KV cache: {0}")]
    KvCache(#[from] models::ModelError),
    /// The threads could not be started.
    #[error("start threads: {reason}")]
    Threads {
        /// What the system said.
        reason: String,
    },
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many wait as may.
    #[error("{queued} requests wait, and no more than {queue_max} may")]
    QueueFull {
        /// Requests that wait.
        queued: usize,
        /// The limit.
        queue_max: usize,
    },
    /// As many of one tenant or adapter wait as may; there is room for others.
    #[error("{queued} requests of this {whose} wait, and no more than {limit} may")]
    QueueShare {
        /// `tenant` or `adapter`.
        whose: &'static str,
        /// Requests that wait.
        queued: usize,
        /// The limit.
        limit: usize,
    },
    /// What waits already needs as much of the KV cache as may be queued.
    #[error(
        "{queued_tokens} tokens of prompts and answers wait; {tokens} more would be above \
         {queue_tokens_max}"
    )]
    QueueTokens {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Tokens that wait.
        queued_tokens: usize,
        /// The limit.
        queue_tokens_max: usize,
    },
    /// Prompt and answer do not fit.
    #[error("{tokens} tokens of prompt and answer are more than {limit}")]
    TooLong {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// What fits: the context, or the whole KV cache.
        limit: usize,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token id {token} is not below the vocabulary size {vocab_size}")]
    TokenOutOfVocab {
        /// The id.
        token: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// No more requests are taken.
    #[error("the engine is draining")]
    Draining,
    /// The thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}
