//! {description}

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use mortise_sdk::{Evidence, RequestInfo, Result, SHARES_TOTAL, Scorer, Share};

struct Plugin;

mortise_sdk::export!(scorer: Plugin);

impl Scorer for Plugin {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn score(&mut self, _request: &RequestInfo, evidence: &Evidence) -> Result<Vec<Share>> {
        let mut weights: BTreeMap<u32, u128> = BTreeMap::new();
        for span in &evidence.spans {
            for owner in &span.owners {
                let weight = u128::from(span.tokens) * u128::from(owner.documents);
                *weights.entry(owner.owner).or_default() += weight;
            }
        }
        weights.retain(|_, weight| *weight > 0);
        Ok(shares(&weights))
    }
}

/// Shares in proportion to the weights. Rounding down leaves less than a part for each owner; the
/// first owners get it, so that the parts add up exactly.
fn shares(weights: &BTreeMap<u32, u128>) -> Vec<Share> {
    let total: u128 = weights.values().sum();
    let part = |weight: &u128| (weight * u128::from(SHARES_TOTAL) / total) as u32;
    let mut left = SHARES_TOTAL - weights.values().map(part).sum::<u32>();
    let share = |(owner, weight): (&u32, &u128)| {
        let extra = left.min(1);
        left -= extra;
        Share {
            owner: *owner,
            parts: part(weight) + extra,
        }
    };
    if total == 0 {
        Vec::new()
    } else {
        weights.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mortise_sdk::testing::Harness;
    use mortise_sdk::{OwnerCount, Span};

    #[test]
    fn shares_go_by_tokens_and_documents() {
        let check = |spans: &[(u32, u32, u32)], expect: &[(u32, u32)]| {
            let span = |(tokens, owner, documents): &(u32, u32, u32)| Span {
                start: 0,
                tokens: *tokens,
                occurrences: 1,
                unigram_logprob: -1.0,
                owners: vec![OwnerCount {
                    owner: *owner,
                    documents: *documents,
                }],
            };
            let spans = spans.iter().map(span).collect();
            let evidence = Evidence {
                owners: 9,
                spans,
                ..Evidence::default()
            };
            let shares = Harness::new()
                .score::<Plugin>(&evidence)
                .expect("valid shares");
            let shares: Vec<(u32, u32)> = shares.iter().map(|it| (it.owner, it.parts)).collect();
            assert_eq!(shares, expect);
        };
        check(&[], &[]);
        check(&[(5, 3, 0)], &[]);
        check(&[(5, 3, 1)], &[(3, 1_000_000_000)]);
        check(
            &[(6, 1, 1), (1, 2, 2)],
            &[(1, 750_000_000), (2, 250_000_000)],
        );
        check(
            &[(1, 1, 1), (1, 2, 1), (1, 3, 1)],
            &[(1, 333_333_334), (2, 333_333_333), (3, 333_333_333)],
        );
    }
}
