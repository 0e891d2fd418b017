//! Statistics of the corpora that the adapters were trained on, never their text. Needs the
//! capability `corpus`.

use super::backend;
use crate::types::Result;

/// One corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The adapter that was trained on it.
    pub adapter: String,
    /// Tokens in it.
    pub tokens: u64,
    /// Documents in it.
    pub documents: u32,
    /// Contributors to it.
    pub owners: u32,
}

/// Every corpus.
#[must_use]
pub fn list() -> Vec<Info> {
    backend::list_corpora()
}

/// How often each run of `n` consecutive tokens of `text` stands in each named corpus: row i is
/// corpus `adapters[i]`, column j the run that starts at token j. A text shorter than `n` tokens
/// gives empty rows.
///
/// # Errors
/// `invalid` for an `n` outside 1 to 16, `not-found` for an adapter without a corpus.
pub fn ngram_counts(adapters: &[String], text: &str, n: u32) -> Result<Vec<Vec<u64>>> {
    backend::ngram_counts(adapters, text, n)
}
