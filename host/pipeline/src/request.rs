//! What a client asks for, after the wire format and before any plugin.

use ::request::{Message, RequestId, SamplingParams, ServingOptions, TokenId};
use serde_json::{Map, Value};
use tokenization::Grammar;

/// What the model is to continue.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
    /// Text, continued as it stands.
    Text(String),
    /// Token ids, continued as they stand.
    Tokens(Vec<TokenId>),
}

impl Input {
    /// What plugins and receipts call this kind of request.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat",
            Self::Text(_) | Self::Tokens(_) => "completion",
        }
    }
}

/// One request. `sampling.max_tokens` and `sampling.seed` are overwritten from the options here,
/// once the prompt's length is known and a seed has been drawn.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Unguessable; names the receipt too.
    pub id: RequestId,
    /// Who asks; salts the prefix cache.
    pub tenant: String,
    /// `auto`, the base model's name, an adapter's alias or `agent:<name>`.
    pub model: String,
    /// What to continue.
    pub input: Input,
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// Its place in the queue and the cache.
    pub serving: ServingOptions,
    /// Further variables of the chat template, such as `enable_thinking`.
    pub template_variables: Map<String, Value>,
    /// Tools that the template tells the model of, as the OpenAI API has them. Agents are told of none,
    /// so they answer no request that has some.
    pub tools: Vec<Value>,
    /// What the answer must be. An agent's answer can't be bounded.
    pub grammar: Option<Grammar>,
    /// Most tokens per choice; `None` is what the context still holds (completions: 16).
    pub max_tokens: Option<u32>,
    /// `None` draws one; either way the receipt has it. Choice `i` uses `seed + i`.
    pub seed: Option<u64>,
    /// Number of choices, at least 1.
    pub n: u32,
    /// Completions only: the prompt's text comes first in the answer.
    pub echo: bool,
    /// Whether the client reads the answer as it comes; plugins are told.
    pub streaming: bool,
    /// Whether every token is told as it comes, those without text of their own too.
    pub every_token: bool,
    /// Whether the summary carries the attribution.
    pub attribution: bool,
}
