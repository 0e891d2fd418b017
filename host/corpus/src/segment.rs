//! An open segment: counts and look-ups by binary search over its suffixes.

use std::cmp::Ordering;
use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::error::OpenError;
use crate::layout::Layout;

/// A corpus in memory. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Segment {
    layout: Layout,
    digest: [u8; 32],
    /// Occurrences of each symbol.
    symbol_counts: Vec<u64>,
}

impl Segment {
    /// Reads and checks the segment file at `path`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] names the field that is wrong.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(io)?;
        let (layout, digest) = Layout::decode(&bytes).map_err(|damage| OpenError::Damaged {
            path: path.to_owned(),
            field: damage.field,
            reason: damage.reason,
        })?;
        // A table as long as the largest id would let a lying file ask for any amount of memory.
        let symbols_max = layout.text.iter().copied().max().unwrap_or_default() as usize;
        let dense = symbols_max <= layout.text.len().saturating_mul(16).max(1 << 20);
        let mut symbol_counts = vec![0; if dense { symbols_max + 1 } else { 0 }];
        if dense {
            for symbol in &layout.text {
                symbol_counts[*symbol as usize] += 1;
            }
        }
        Ok(Self { layout, digest, symbol_counts })
    }

    /// Identity of the segment: SHA-256 of its content.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Digest of the tokenizer that made the ids.
    #[must_use]
    pub fn tokenizer_digest(&self) -> [u8; 32] {
        self.layout.tokenizer
    }

    /// Tokens of all documents.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        (self.layout.text.len() - self.layout.document_ids.len()) as u64
    }

    /// Number of documents.
    #[must_use]
    pub fn documents(&self) -> u32 {
        u32::try_from(self.layout.document_ids.len()).expect("checked on opening")
    }

    /// Number of owners.
    #[must_use]
    pub fn owners(&self) -> u32 {
        u32::try_from(self.layout.owner_names.len()).expect("checked on opening")
    }

    /// Name of an owner.
    ///
    /// # Panics
    /// If `owner` is not below [`Self::owners`].
    #[must_use]
    pub fn owner_name(&self, owner: u32) -> &str {
        &self.layout.owner_names[owner as usize]
    }

    /// Id of a document.
    ///
    /// # Panics
    /// If `document` is not below [`Self::documents`].
    #[must_use]
    pub fn document_id(&self, document: u32) -> &str {
        &self.layout.document_ids[document as usize]
    }

    /// Owner of a document.
    pub(crate) fn document_owner(&self, document: u32) -> u32 {
        self.layout.document_owners[document as usize]
    }

    /// How often `tokens` stands in the corpus; an empty run stands nowhere.
    #[must_use]
    pub fn count(&self, tokens: &[u32]) -> u64 {
        if let ([token], false) = (tokens, self.symbol_counts.is_empty()) {
            let symbol = token.checked_add(1).map_or(usize::MAX, |symbol| symbol as usize);
            return self.symbol_counts.get(symbol).copied().unwrap_or_default();
        }
        if tokens.is_empty() {
            return 0;
        }
        self.matches(tokens).len() as u64
    }

    /// How often each run of `n` tokens of `tokens` stands in the corpus, by where it starts; none for
    /// an `n` of 0.
    #[must_use]
    pub fn ngram_counts(&self, tokens: &[u32], n: usize) -> Vec<u64> {
        if n == 0 {
            return Vec::new();
        }
        tokens.windows(n).map(|run| self.count(run)).collect()
    }

    /// Suffixes that begin with `tokens`, as a range of the suffix array.
    pub(crate) fn matches(&self, tokens: &[u32]) -> Range<usize> {
        let suffixes = &self.layout.suffixes;
        let start = suffixes.partition_point(|at| self.compare(*at, tokens) == Ordering::Less);
        let rest = &suffixes[start..];
        let length = rest.partition_point(|at| self.compare(*at, tokens) == Ordering::Equal);
        start..start + length
    }

    /// Length of the longest prefix of `tokens` that stands in the corpus.
    pub(crate) fn longest_prefix(&self, tokens: &[u32]) -> usize {
        let suffixes = &self.layout.suffixes;
        // The longest common prefix is with a neighbour of where `tokens` would be sorted in.
        let at = suffixes.partition_point(|at| self.compare(*at, tokens) == Ordering::Less);
        let neighbours = suffixes[at.saturating_sub(1)..].iter().take(2);
        neighbours.map(|suffix| self.common_prefix(*suffix, tokens)).max().unwrap_or_default()
    }

    /// The document that holds the symbol at `at`.
    pub(crate) fn document_at(&self, at: u32) -> u32 {
        let behind = self.layout.document_starts.partition_point(|start| *start <= at);
        u32::try_from(behind - 1).expect("the first document starts at 0")
    }

    /// Start in the text of the suffix of that rank.
    pub(crate) fn suffix(&self, rank: usize) -> u32 {
        self.layout.suffixes[rank]
    }

    /// Compares the beginning of the suffix at `at` with `tokens`; `Equal` if it begins with them.
    fn compare(&self, at: u32, tokens: &[u32]) -> Ordering {
        let suffix = &self.layout.text[at as usize..];
        for (symbol, token) in suffix.iter().zip(tokens) {
            // Symbols are tokens plus one; comparing as u64 keeps the largest id from wrapping.
            match u64::from(*symbol).cmp(&(u64::from(*token) + 1)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        if suffix.len() < tokens.len() { Ordering::Less } else { Ordering::Equal }
    }

    fn common_prefix(&self, at: u32, tokens: &[u32]) -> usize {
        let suffix = self.layout.text[at as usize..].iter();
        let same = |(symbol, token): &(&u32, &u32)| u64::from(**symbol) == u64::from(**token) + 1;
        suffix.zip(tokens).take_while(same).count()
    }
}
