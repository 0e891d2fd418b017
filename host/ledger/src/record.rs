//! What a receipt says. The order of fields here is the order in the payload, which is hashed as it
//! was first written: adding a field later changes new payloads only.

use serde::{Deserialize, Serialize};

use crate::chain::Digest;

/// Shares of one receipt sum to this, or there are none.
pub const PARTS_TOTAL: u64 = 1_000_000_000;
/// Longest id of a receipt in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// What the caller knows about a request when it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Unguessable name; unique in the log.
    pub id: String,
    /// Wall clock at the end of the request, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Who asked.
    pub tenant: String,
    /// `completed`, `cancelled`, `rejected` or `failed`.
    pub status: String,
    /// The model as the client named it.
    pub model: String,
    /// Digest of the input.
    pub request_digest: Digest,
    /// Digest of the text that was sent, choice by choice.
    pub output_digest: Digest,
    /// Digest of the base model's configuration and weights.
    pub base_digest: Digest,
    /// Digest of the tokenizer.
    pub tokenizer_digest: Digest,
    /// The adapter that answered.
    pub adapter: Option<AdapterRef>,
    /// Every plugin that took part.
    pub plugins: Vec<PluginRecord>,
    /// Digest of the corpus segment that the answer was traced in.
    pub corpus_digest: Option<Digest>,
    /// Who is credited.
    pub attribution: AttributionRecord,
    /// Tokens.
    pub usage: UsageRecord,
    /// Why the first choice ended.
    pub finish_reason: String,
    /// Seed of the first choice.
    pub seed: u64,
}

/// An adapter by the name it was called and by what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterRef {
    /// The name at the time.
    pub alias: String,
    /// Digest of configuration and weights.
    pub generation: Digest,
}

/// One plugin's part in a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// `router`, `preprocessor`, `postprocessor`, `scorer` or `agent`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of the component.
    pub digest: Digest,
    /// How it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether the request went on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bypassed: bool,
}

/// Evidence and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributionRecord {
    /// Kind of evidence and scorer.
    pub method: String,
    /// `scored`, `none` or `failed`.
    pub status: String,
    /// Number of spans found.
    pub spans: u32,
    /// Largest first; parts sum to [`PARTS_TOTAL`], or there are none.
    pub shares: Vec<ShareRecord>,
    /// What the reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One contributor's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareRecord {
    /// Name as in the corpus.
    pub contributor: String,
    /// Parts per billion.
    pub parts_per_billion: u32,
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// In the prompt.
    pub prompt_tokens: u32,
    /// Generated.
    pub completion_tokens: u32,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: u32,
}

/// An entry and its place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What was recorded.
    #[serde(flatten)]
    pub entry: Entry,
    /// Position in the log, from 0.
    pub index: u64,
    /// Hash of the record before it.
    pub previous_hash: Digest,
    /// Hash of this record.
    pub hash: Digest,
    /// The hashed bytes, as text: `entry` is what they say.
    pub payload: String,
}

impl Entry {
    /// What is wrong with the entry, if something is.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX {
            return Some(format!("id of {} bytes, not 1 to {ID_BYTES_MAX}", self.id.len()));
        }
        let shares = &self.attribution.shares;
        let total: u64 = shares.iter().map(|share| u64::from(share.parts_per_billion)).sum();
        (!shares.is_empty() && total != PARTS_TOTAL)
            .then(|| format!("shares sum to {total}, not {PARTS_TOTAL}"))
    }
}
