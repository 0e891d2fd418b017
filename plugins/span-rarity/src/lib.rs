//! A scorer that credits contributors for the rare things an answer repeats from their data.
//!
//! A span is worth its information content, the negative of its unigram log-probability, divided by
//! the number of distinct owners who wrote it: common phrases and phrases that everybody uses are
//! worth little. Where spans overlap, each token counts for the longest span that covers it. A
//! span's worth goes to its owners in proportion to their documents that hold it, and the sums are
//! rounded to parts per billion by largest remainder, so they always add up exactly.
//!
//! The result depends on the evidence alone, not on the order in which its spans come. There are no
//! settings. Malformed evidence (no owners, numbers out of range, a log-probability that is not a
//! number) earns nothing and never fails.

#![forbid(unsafe_code)]

mod overlap;
mod rounding;

use std::collections::BTreeMap;

use mortise_sdk::{Evidence, OwnerCount, RequestInfo, Result, Scorer, Share, Span};

use crate::overlap::Claims;

struct SpanRarity;

mortise_sdk::export!(scorer: SpanRarity);

impl Scorer for SpanRarity {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn score(&mut self, _request: &RequestInfo, evidence: &Evidence) -> Result<Vec<Share>> {
        Ok(rounding::shares(&weights(evidence)))
    }
}

/// What each owner's part of the answer is worth, in nats.
fn weights(evidence: &Evidence) -> BTreeMap<u32, f64> {
    let mut spans: Vec<&Span> = evidence.spans.iter().filter(|span| worth(span) > 0.0).collect();
    // Longest first; among equals the rarer, then the earlier. The rest makes the order total.
    spans.sort_by(|a, b| {
        let by_length = b.tokens.cmp(&a.tokens);
        let by_rarity = a.unigram_logprob.total_cmp(&b.unigram_logprob);
        by_length.then(by_rarity).then(a.start.cmp(&b.start)).then_with(|| owners(a).cmp(owners(b)))
    });
    let mut claims = Claims::default();
    let mut weights = BTreeMap::new();
    for span in spans {
        let claimed = claims.claim(span.start, span.tokens);
        let worth = worth(span) * (claimed as f64 / f64::from(span.tokens));
        for (owner, part) in split(span, evidence.owners) {
            *weights.entry(owner).or_insert(0.0) += worth * part;
        }
    }
    weights
}

/// Information content per distinct owner; 0 for a span that makes no sense.
fn worth(span: &Span) -> f64 {
    let information = -span.unigram_logprob;
    if span.tokens == 0 || span.owners.is_empty() || !information.is_finite() {
        return 0.0;
    }
    information.max(0.0) / span.owners.len() as f64
}

fn owners(span: &Span) -> impl Iterator<Item = (u32, u32)> {
    span.owners.iter().map(|OwnerCount { owner, documents }| (*owner, *documents))
}

/// The owners of a span, each with its part of the span's documents.
fn split(span: &Span, owners_max: u32) -> impl Iterator<Item = (u32, f64)> {
    let known = move |(owner, _): &(u32, u32)| *owner < owners_max;
    let total: u64 = owners(span).filter(known).map(|(_, documents)| u64::from(documents)).sum();
    // Without a document nobody is left to divide among.
    let total = total.max(1) as f64;
    owners(span).filter(known).map(move |(owner, documents)| (owner, f64::from(documents) / total))
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    fn span(start: u32, tokens: u32, logprob: f64, owners: &[(u32, u32)]) -> Span {
        let owner =
            |(owner, documents): &(u32, u32)| OwnerCount { owner: *owner, documents: *documents };
        Span {
            start,
            tokens,
            occurrences: 1,
            unigram_logprob: logprob,
            owners: owners.iter().map(owner).collect(),
        }
    }

    fn score(spans: Vec<Span>) -> Vec<(u32, u32)> {
        let evidence = Evidence {
            corpus_tokens: 1_000,
            output_tokens: 100,
            owners: 10,
            spans,
            ..Evidence::default()
        };
        let shares = Harness::new().score::<SpanRarity>(&evidence).expect("valid shares");
        shares.iter().map(|share| (share.owner, share.parts)).collect()
    }

    fn check(spans: &[Span], expect: &[(u32, u32)]) {
        assert_eq!(score(spans.to_vec()), expect);
        let reversed = spans.iter().rev().cloned().collect();
        assert_eq!(score(reversed), expect, "another order");
    }

    #[test]
    fn nothing_matched_is_nothing_shared() {
        check(&[], &[]);
    }

    #[test]
    fn planted_causes_are_found() {
        check(&[span(0, 5, -40.0, &[(3, 1)])], &[(3, 1_000_000_000)]);
        // Three times the information, three times the share.
        let rare_and_common = [span(0, 5, -30.0, &[(1, 1)]), span(5, 5, -10.0, &[(2, 1)])];
        check(&rare_and_common, &[(1, 750_000_000), (2, 250_000_000)]);
        // Two owners halve the worth, and split it by documents: 10 against 20/2 as 9 to 1.
        let shared = [span(0, 5, -10.0, &[(1, 4)]), span(5, 5, -20.0, &[(2, 9), (3, 1)])];
        check(&shared, &[(1, 500_000_000), (2, 450_000_000), (3, 50_000_000)]);
    }

    #[test]
    fn tokens_count_for_the_longest_span() {
        // The second span keeps 2 of its 4 tokens: 40 against 20 / 2.
        let overlapping = [span(0, 8, -40.0, &[(1, 1)]), span(6, 4, -20.0, &[(2, 1)])];
        check(&overlapping, &[(1, 800_000_000), (2, 200_000_000)]);
        // Wholly covered: nothing.
        let covered = [span(0, 8, -40.0, &[(1, 1)]), span(2, 4, -90.0, &[(2, 1)])];
        check(&covered, &[(1, 1_000_000_000)]);
        // The same place and length: the rarer reading stands.
        let same = [span(0, 8, -40.0, &[(1, 1)]), span(0, 8, -41.0, &[(2, 1)])];
        check(&same, &[(2, 1_000_000_000)]);
    }

    #[test]
    fn thirds_add_up() {
        let thirds = [1, 2, 3].map(|owner| span(owner * 5, 5, -10.0, &[(owner, 1)]));
        check(&thirds, &[(1, 333_333_334), (2, 333_333_333), (3, 333_333_333)]);
    }

    #[test]
    fn senseless_evidence_earns_nothing() {
        let good = span(0, 5, -40.0, &[(3, 1)]);
        for senseless in [
            span(50, 5, f64::NAN, &[(1, 1)]),
            span(50, 5, f64::NEG_INFINITY, &[(1, 1)]),
            span(50, 5, 3.0, &[(1, 1)]),
            span(50, 5, 0.0, &[(1, 1)]),
            span(50, 0, -9.0, &[(1, 1)]),
            span(50, 5, -9.0, &[]),
            span(50, 5, -9.0, &[(1, 0)]),
            span(50, 5, -9.0, &[(10, 7)]),
        ] {
            check(std::slice::from_ref(&senseless), &[]);
            check(&[good.clone(), senseless], &[(3, 1_000_000_000)]);
        }
        check(&[span(u32::MAX, u32::MAX, -9.0, &[(1, u32::MAX)])], &[(1, 1_000_000_000)]);
        // Sums that overflow a float to infinity give nobody anything, rather than everybody all.
        let huge = [span(0, 5, -f64::MAX, &[(1, 1)]), span(5, 5, -f64::MAX, &[(1, 1)])];
        check(&huge, &[]);
        let huge_and_small = [span(0, 5, -f64::MAX, &[(1, 1)]), span(5, 5, -1.0, &[(2, 1)])];
        check(&huge_and_small, &[(1, 1_000_000_000)]);
    }

    #[test]
    fn ten_thousand_spans_are_scored_exactly() {
        let spans: Vec<Span> = (0..10_000_u32)
            .map(|i| {
                let owners = [(i % 10, 1 + i % 3), ((i + 1) % 10, 1)];
                span(i * 7 % 9_973, 1 + i * 31 % 50, -f64::from(1 + i % 97), &owners)
            })
            .collect();
        let shares = score(spans);
        assert!(shares.len() > 2, "{shares:?}");
        assert_eq!(shares.iter().map(|(_, parts)| u64::from(*parts)).sum::<u64>(), 1_000_000_000);
    }
}
