//! What is asked of the engine and what it answers, event by event.

use std::sync::Arc;
use std::time::Duration;

use lora::Adapter;
use request::{FinishReason, SamplingParams, TokenId, TokenLogprob, Usage};
use tokio::sync::mpsc;

use crate::course::{Course, Timing};

/// A sequence to generate.
#[derive(Debug)]
pub struct EngineRequest {
    /// Tokens to continue.
    pub prompt: Vec<TokenId>,
    /// How to choose tokens. Stop strings are not looked at.
    pub sampling: SamplingParams,
    /// The adapter; the engine keeps it alive as long as the sequence runs.
    pub adapter: Option<Arc<Adapter>>,
    /// Keeps prefix blocks of different tenants apart.
    pub cache_salt: String,
    /// Who asks: tenants share the engine evenly, whatever each asks for.
    pub tenant: String,
    /// Lower runs first and takes places from higher ones; 0 is usual.
    pub priority: i64,
    /// Longest it may wait before it runs for the first time; the engine's own limit if that is
    /// shorter.
    pub start_within: Option<Duration>,
}

/// What happens to a sequence.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// Log probabilities of the prompt's tokens; the first has none. Comes before the first token.
    PromptLogprobs(Vec<Option<TokenLogprob>>),
    /// Mean of the last hidden states of all prompt tokens, `[hidden_size]`, for who asked for it with
    /// [`crate::EngineHandle::pool`].
    Pooled(Vec<f32>),
    /// A token. One that ends the answer as a stop is none of these.
    Token {
        /// Its id.
        id: TokenId,
        /// Its log probability, if it was asked for.
        logprob: Option<TokenLogprob>,
    },
    /// The token that ended the answer as a stop, for who asked for log probabilities. Comes before
    /// the end.
    Stop {
        /// Its id.
        id: TokenId,
        /// Its log probability.
        logprob: TokenLogprob,
    },
    /// The end. Last event.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Tokens; a stop token counts.
        usage: Usage,
    },
    /// It did not run in time. Last event, and the only one.
    Expired {
        /// How long it waited.
        waited: Duration,
    },
    /// The sequence failed. Last event.
    Failed {
        /// What happened.
        message: String,
    },
}

/// The events of one sequence. Dropping it ends the sequence at the next step.
#[derive(Debug)]
pub struct OutputStream {
    pub(crate) events: mpsc::Receiver<EngineEvent>,
    pub(crate) course: Arc<Course>,
}

/// How far a sequence has come, without its events.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Course>);

impl Progress {
    /// When what happened.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.0.timing()
    }

    /// Tokens generated so far.
    #[must_use]
    pub fn generated_tokens(&self) -> u32 {
        self.0.generated_tokens()
    }

    /// Prompt tokens that the prefix cache held; 0 until it has started.
    #[must_use]
    pub fn cached_tokens(&self) -> u32 {
        self.0.cached_tokens()
    }
}

impl OutputStream {
    /// Prompt tokens that the prefix cache held, as far as is known: 0 until the sequence has started.
    /// For readers who leave before the end tells.
    #[must_use]
    pub fn cached_tokens(&self) -> u32 {
        self.course.cached_tokens()
    }

    /// When what happened, as far as it has. All of it is known once the last event has been read.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.course.timing()
    }

    /// A look at the sequence for others than the reader of its events.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.course))
    }

    /// The next event; `None` after the last, or if the engine's thread has ended.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        self.events.recv().await
    }
}
