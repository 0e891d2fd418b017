//! Maximal spans: the runs of an output that stand in the corpus and could not be longer.

use std::collections::{BTreeMap, BTreeSet};

use crate::segment::Segment;

/// Occurrences of one span that are looked at for owners. A run that is more frequent than this is
/// nobody's in particular; its `count` is exact all the same.
pub const OCCURRENCES_MAX: usize = 4096;

/// What counts as a span, and how much of it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLimits {
    /// Shortest span in tokens; at least 1.
    pub min_tokens: usize,
    /// Most spans of one output. The longest are kept.
    pub spans_max: usize,
    /// Most documents named per span.
    pub documents_per_span_max: usize,
}

/// Documents of one owner that hold a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerCount {
    /// The owner.
    pub owner: u32,
    /// Distinct documents.
    pub documents: u32,
}

/// A run of the output that stands in the corpus and could not be extended on either side.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Index of its first token in the output.
    pub start: u32,
    /// Its length in tokens.
    pub len: u32,
    /// Times it stands in the corpus.
    pub count: u64,
    /// Sum of the natural logs of its tokens' shares of the corpus; at most 0.
    pub unigram_logprob: f64,
    /// Owners in ascending order.
    pub owners: Vec<OwnerCount>,
    /// The first documents that hold it, ascending.
    pub documents: Vec<u32>,
    /// Whether only [`OCCURRENCES_MAX`] occurrences were looked at for owners and documents.
    pub capped: bool,
}

impl Segment {
    /// All maximal spans of `output` within the limits, in the order of their starts.
    #[must_use]
    pub fn spans(&self, output: &[u32], limits: &SpanLimits) -> Vec<Span> {
        let mut found = Vec::new();
        let mut covered = 0;
        for start in 0..output.len() {
            let length = self.longest_prefix(&output[start..]);
            // The longest match from here ends at or behind where the one before it ended; only if
            // it ends behind is it not part of that one.
            if start + length > covered && length >= limits.min_tokens.max(1) {
                found.push((start, length));
            }
            covered = covered.max(start + length);
        }
        if found.len() > limits.spans_max {
            found.sort_by_key(|(start, length)| (std::cmp::Reverse(*length), *start));
            found.truncate(limits.spans_max);
            found.sort_unstable();
        }
        found.into_iter().map(|(start, length)| self.span(output, start, length, limits)).collect()
    }

    fn span(&self, output: &[u32], start: usize, length: usize, limits: &SpanLimits) -> Span {
        let tokens = &output[start..start + length];
        let ranks = self.matches(tokens);
        let count = ranks.len() as u64;
        let capped = ranks.len() > OCCURRENCES_MAX;
        let looked_at = ranks.take(OCCURRENCES_MAX);
        let documents: BTreeSet<u32> =
            looked_at.map(|rank| self.document_at(self.suffix(rank))).collect();
        let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
        for document in &documents {
            *owners.entry(self.document_owner(*document)).or_default() += 1;
        }
        let total = self.tokens() as f64;
        let logprob = |token: &u32| (self.count(&[*token]) as f64 / total).ln();
        let index = |value: usize| u32::try_from(value).expect("outputs are shorter than 2^32");
        Span {
            start: index(start),
            len: index(length),
            count,
            unigram_logprob: tokens.iter().map(logprob).sum(),
            owners: owners
                .into_iter()
                .map(|(owner, documents)| OwnerCount { owner, documents })
                .collect(),
            documents: documents.into_iter().take(limits.documents_per_span_max).collect(),
            capped,
        }
    }
}
