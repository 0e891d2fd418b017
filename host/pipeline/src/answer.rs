//! What comes back: a stream of events that ends in a summary or a failure.

use std::sync::Arc;
use std::time::Duration;

use ::request::{FinishReason, RequestId, TokenId, Usage};
use engine::Timing;
use tokio::sync::mpsc;

use crate::error::PipelineError;

/// One token of the answer for `logprobs`: the model's own token, before postprocessors.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenPiece {
    /// Its id.
    pub id: TokenId,
    /// Its text alone; half characters show as U+FFFD.
    pub text: String,
    /// Its bytes, where the tokenizer knows them.
    pub bytes: Option<Vec<u8>>,
    /// Natural log of its probability; `None` for the first token of an echoed prompt.
    pub logprob: Option<f32>,
    /// The likeliest alternatives, best first.
    pub top: Vec<Alternative>,
}

/// An alternative to a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Its id.
    pub id: TokenId,
    /// Its text alone.
    pub text: String,
    /// Its bytes, where the tokenizer knows them.
    pub bytes: Option<Vec<u8>>,
    /// Natural log of its probability.
    pub logprob: f32,
}

/// One contributor's part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Name of the contributor, as the corpus has it.
    pub contributor: String,
    /// Share in parts per billion.
    pub parts_per_billion: u32,
}

/// A run of the answer that stands in the corpus word for word.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchedSpan {
    /// Choice the span is in.
    pub choice: u32,
    /// Its text.
    pub text: String,
    /// Its length in tokens.
    pub tokens: u32,
    /// Times it stands in the corpus.
    pub occurrences: u64,
    /// Contributors whose documents hold it.
    pub contributors: Vec<String>,
    /// Some of those documents.
    pub documents: Vec<String>,
}

/// Whether an answer could be credited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributionStatus {
    /// The scorer gave shares that sum to 1,000,000,000.
    Scored,
    /// Nothing in the answer stands in the corpus, or there is no corpus or scorer.
    None,
    /// The scorer failed; the note says how.
    Failed,
}

/// Evidence and shares of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// Whether there are shares.
    pub status: AttributionStatus,
    /// Where the shares come from, for example `spans@1+span-rarity@0.1.0`.
    pub method: String,
    /// Largest share first.
    pub credits: Vec<Credit>,
    /// In order of choice and position.
    pub spans: Vec<MatchedSpan>,
    /// What the reader should know: why there are no shares, or what spans cannot show.
    pub note: Option<String>,
}

/// The end of an answer. It is sent once the receipt is on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Tokens of all choices.
    pub usage: Usage,
    /// When its sequences ran; an agent's and a plugin's answer have none.
    pub timing: Timing,
    /// Present where the request asked for it.
    pub attribution: Option<Attribution>,
    /// Digest of the receipt in the log, in hex.
    pub receipt_hash: String,
}

/// One event of an answer.
#[derive(Clone, Debug)]
pub enum AnswerEvent {
    /// More of one choice. `text` is what postprocessors let through, perhaps empty where only
    /// `tokens` (present if logprobs were asked for) are new.
    Delta {
        /// Index of the choice.
        choice: u32,
        /// Text to append.
        text: String,
        /// Tokens since the last delta, and before them those of an echoed prompt.
        tokens: Vec<TokenPiece>,
        /// Ids of the tokens that were generated since the last delta. They belong to `text` only
        /// where no postprocessor acts.
        ids: Vec<TokenId>,
    },
    /// A choice is complete.
    Finished {
        /// Index of the choice.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// All is complete and recorded. Last event.
    Done(Summary),
    /// The request failed after it began. Last event.
    Failed(PipelineError),
}

/// A request that has been admitted. Dropping it cancels the work at the engine's next step; a
/// receipt of the cancelled request is still written.
#[derive(Debug)]
pub struct Answer {
    /// The request's id.
    pub id: RequestId,
    /// Who answers: the base model's name, an adapter's alias or `agent:<name>`.
    pub model: String,
    /// Tokens that the model continues; none if a plugin answers.
    pub prompt: Arc<[TokenId]>,
    /// How long the load of its adapter took, from when it was asked for; zero if it was in memory,
    /// `None` without an adapter of its own.
    pub adapter_wait: Option<Duration>,
    pub(crate) events: mpsc::Receiver<AnswerEvent>,
}

impl Answer {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        self.events.recv().await
    }
}
