//! The host's own words for what crosses a hook. Generated WIT types never leave this crate; these
//! do. Nothing here checks anything: the typed calls on [`crate::Plugin`] do.

use request::{Message, SamplingParams, Usage};

/// What every hook is told about the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The request's id, which is also its receipt's.
    pub id: String,
    /// Who asks.
    pub tenant: String,
    /// `chat` or `completion`.
    pub endpoint: String,
    /// As the client wrote it.
    pub model: String,
    /// The adapter that will answer; `None` before routing and for the base model.
    pub adapter: Option<String>,
    /// Whether the client reads the answer as it comes.
    pub streaming: bool,
}

/// One model that a router may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The base model's name or an adapter's alias.
    pub model: String,
    /// Whether it is an adapter.
    pub is_adapter: bool,
}

/// A plugin's answer of policy to the client, not a fault of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// HTTP status: 400 to 499, or 503. The host has checked it.
    pub status: u16,
    /// Machine-readable reason.
    pub code: String,
    /// For the reader.
    pub message: String,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// What a router decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteDecision {
    /// No opinion.
    Pass,
    /// One of the candidates; the host has checked that it is one.
    To(String),
    /// Nobody answers.
    Reject(Reject),
}

/// The part of the sampling parameters that plugins see; `None` is the server's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingView {
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus of this mass.
    pub top_p: Option<f32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Seed of the random choices.
    pub seed: Option<u64>,
}

impl SamplingView {
    /// Parameters with every field that is set here and the defaults for the rest. Not validated:
    /// the values are a guest's.
    #[must_use]
    pub fn to_params(&self) -> SamplingParams {
        let default = SamplingParams::default();
        SamplingParams {
            max_tokens: self.max_tokens.unwrap_or(default.max_tokens),
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            stop: self.stop.clone(),
            seed: self.seed.unwrap_or(default.seed),
            ..default
        }
    }
}

/// What a preprocessor decided.
#[derive(Clone, Debug, PartialEq)]
pub enum PreprocessOutcome {
    /// Go on as it was.
    Unchanged,
    /// Go on with these.
    Change {
        /// The whole conversation, not empty.
        messages: Vec<Message>,
        /// `None` leaves the sampling as it was.
        sampling: Option<SamplingView>,
    },
    /// The answer; the model is not asked.
    Respond(Message),
    /// Nobody answers.
    Reject(Reject),
}

/// What becomes of a piece of streamed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamAction {
    /// The text goes on as it came; nothing is held.
    Pass,
    /// The plugin keeps it for now.
    Hold,
    /// This goes on in place of the text and of all that was held.
    Replace(String),
    /// This goes on, and the answer ends here.
    Stop(String),
}

/// A run of output tokens that stands in the corpus word for word and could not be longer.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidenceSpan {
    /// First token, counted in the output.
    pub start: u32,
    /// Number of tokens.
    pub tokens: u32,
    /// Times it stands in the corpus.
    pub occurrences: u64,
    /// Sum of the natural log of each token's share of the corpus: at most 0.
    pub unigram_logprob: f64,
    /// Owner and number of that owner's documents that hold it.
    pub owners: Vec<(u32, u32)>,
}

/// What a scorer turns into shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Tokens in the corpus.
    pub corpus_tokens: u64,
    /// Tokens in the output.
    pub output_tokens: u32,
    /// Owners are numbers from 0 to `owners` - 1.
    pub owners: u32,
    /// All maximal spans.
    pub spans: Vec<EvidenceSpan>,
}

/// One owner's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Below [`Evidence::owners`].
    pub owner: u32,
    /// Parts per billion.
    pub parts: u32,
}

/// What shares sum to, unless there are none.
pub const SHARES_TOTAL: u32 = 1_000_000_000;

/// An agent's call for an answer of the host's own models.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateCall {
    /// The base model's name or an adapter's.
    pub model: String,
    /// The conversation to answer.
    pub messages: Vec<Message>,
    /// A guest's wishes, not validated.
    pub sampling: SamplingView,
    /// Tokens that prompt and answer together may use. The host has checked that it is not 0.
    pub budget_tokens: u32,
}

/// The whole answer to a [`GenerateCall`].
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The model's turn.
    pub message: Message,
    /// As the OpenAI API spells it.
    pub finish_reason: String,
    /// Tokens used; counted against the run's budget.
    pub usage: Usage,
}

/// Statistics of one corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusInfo {
    /// Alias of the adapter that was trained on it.
    pub adapter: String,
    /// Tokens in it.
    pub tokens: u64,
    /// Documents in it.
    pub documents: u32,
    /// Contributors to it.
    pub owners: u32,
}
