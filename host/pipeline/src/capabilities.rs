//! What the host lends to plugins that were granted it: tokenizer and corpus statistics. Never a
//! corpus's text.

use std::sync::Arc;

use ::request::TokenId;
use plugin_host::{CapabilityError, CorpusCapability, CorpusInfo, TokenizerCapability};
use tokenization::Tokenizer;

use crate::corpus_store::CorpusStore;

/// Longest text a plugin may have encoded in one call, in bytes.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Longest run of tokens that is counted.
const NGRAM_TOKENS_MAX: u32 = 16;

/// Tokenizer and corpora as plugins see them.
pub struct HostCapabilities {
    tokenizer: Arc<Tokenizer>,
    corpora: Arc<CorpusStore>,
}

impl HostCapabilities {
    /// Lends `tokenizer` and statistics of `corpora`.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, corpora: Arc<CorpusStore>) -> Self {
        Self { tokenizer, corpora }
    }
}

fn invalid(message: impl Into<String>) -> CapabilityError {
    CapabilityError::new("invalid", message)
}

impl TokenizerCapability for HostCapabilities {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>, CapabilityError> {
        if text.len() > TEXT_BYTES_MAX {
            let message =
                format!("text of {} bytes is over the limit of {TEXT_BYTES_MAX}", text.len());
            return Err(invalid(message));
        }
        self.tokenizer.encode(text, false).map_err(|error| invalid(error.to_string()))
    }

    fn decode(&self, ids: &[TokenId]) -> Result<String, CapabilityError> {
        self.tokenizer.decode(ids, false).map_err(|error| invalid(error.to_string()))
    }
}

impl CorpusCapability for HostCapabilities {
    fn list(&self) -> Vec<CorpusInfo> {
        let info = |(adapter, segment): (String, Arc<corpus::Segment>)| CorpusInfo {
            adapter,
            tokens: segment.tokens(),
            documents: segment.documents(),
            owners: segment.owners(),
        };
        self.corpora.list().into_iter().map(info).collect()
    }

    fn ngram_counts(
        &self,
        adapters: &[String],
        text: &str,
        n: u32,
    ) -> Result<Vec<Vec<u64>>, CapabilityError> {
        if !(1..=NGRAM_TOKENS_MAX).contains(&n) {
            return Err(invalid(format!("n is {n}, not 1 to {NGRAM_TOKENS_MAX}")));
        }
        let tokens = self.encode(text)?;
        let counts = |adapter: &String| {
            let unknown = || CapabilityError::new("not-found", format!("no corpus of `{adapter}`"));
            let segment = self.corpora.get(adapter).ok_or_else(unknown)?;
            Ok(segment.ngram_counts(&tokens, n as usize))
        };
        adapters.iter().map(counts).collect()
    }
}
