//! What the embedder lends to plugins that were granted it. The host links an import only where the
//! operator granted it, bounds what crosses, and never interprets it.

use std::sync::Arc;

use async_trait::async_trait;
use request::TokenId;
use serde::{Deserialize, Serialize};

use crate::types::{Completion, CorpusInfo, GenerateCall};

/// Something an operator may grant to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// `mortise:cap/tokenizer`.
    Tokenizer,
    /// `mortise:cap/generate`; for agents only, because a hook has no time to wait for a model.
    Generate,
    /// `mortise:cap/corpus`.
    Corpus,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 3] = [Self::Tokenizer, Self::Generate, Self::Corpus];

    /// As manifests and configurations spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Generate => "generate",
            Self::Corpus => "corpus",
        }
    }
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a capability said no. The guest is told exactly this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CapabilityError {
    /// One of the kebab-case codes that `wit/deps/core/types.wit` lists.
    pub code: String,
    /// For the plugin's author.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}

impl CapabilityError {
    /// An error that is retryable if its code is `unavailable` or `timeout`.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let code = code.into();
        let retryable = matches!(code.as_str(), "unavailable" | "timeout");
        Self { code, message: message.into(), retryable }
    }
}

/// The base model's tokenizer. Called while a guest waits, under its deadline: must not block.
pub trait TokenizerCapability: Send + Sync {
    /// Tokens of `text`, without special tokens added.
    ///
    /// # Errors
    /// What the guest is told.
    fn encode(&self, text: &str) -> Result<Vec<TokenId>, CapabilityError>;

    /// Text of `ids`.
    ///
    /// # Errors
    /// What the guest is told.
    fn decode(&self, ids: &[TokenId]) -> Result<String, CapabilityError>;
}

/// Answers from the host's own models, for one agent run.
#[async_trait]
pub trait GenerateCapability: Send + Sync {
    /// Waits for the whole answer. Dropping the future must cancel the work.
    ///
    /// # Errors
    /// What the guest is told.
    async fn generate(&self, call: GenerateCall) -> Result<Completion, CapabilityError>;
}

/// Statistics of the adapters' corpora. Called while a guest waits: must not block.
pub trait CorpusCapability: Send + Sync {
    /// Every corpus.
    fn list(&self) -> Vec<CorpusInfo>;

    /// Row i: how often each run of `n` tokens of `text` stands in the corpus of `adapters[i]`.
    ///
    /// # Errors
    /// What the guest is told.
    fn ngram_counts(
        &self,
        adapters: &[String],
        text: &str,
        n: u32,
    ) -> Result<Vec<Vec<u64>>, CapabilityError>;
}

/// What there is to grant. A capability that is absent here cannot be granted.
#[derive(Clone, Default)]
pub struct Capabilities {
    /// Lent to plugins granted `tokenizer`.
    pub tokenizer: Option<Arc<dyn TokenizerCapability>>,
    /// Lent to plugins granted `corpus`.
    pub corpus: Option<Arc<dyn CorpusCapability>>,
}

/// What one agent run is lent.
#[derive(Clone)]
pub struct AgentContext {
    /// Answers the run's calls.
    pub generate: Arc<dyn GenerateCapability>,
    /// Tokens the run may use; the smaller of this and the policy's holds.
    pub budget_tokens: Option<u32>,
}
