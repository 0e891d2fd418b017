//! A scorer whose version shows in who gets everything: owner 0 for version 1, owner 1 for version
//! 2, and so on round the owners.

#![forbid(unsafe_code)]

use mortise_sdk::{Error, Evidence, RequestInfo, Result, SHARES_TOTAL, Scorer, Share};

struct Stamp {
    number: u32,
}

mortise_sdk::export!(scorer: Stamp);

impl Scorer for Stamp {
    fn new() -> Result<Self> {
        let major: u32 = env!("CARGO_PKG_VERSION_MAJOR")
            .parse()
            .map_err(|_| Error::internal("the major version is no number"))?;
        Ok(Self { number: major.saturating_sub(1) })
    }

    fn score(&mut self, _request: &RequestInfo, evidence: &Evidence) -> Result<Vec<Share>> {
        if evidence.owners == 0 || evidence.spans.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Share { owner: self.number % evidence.owners, parts: SHARES_TOTAL }])
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;
    use mortise_sdk::{OwnerCount, Span};

    use super::*;

    #[test]
    fn one_owner_gets_everything() {
        let span = Span {
            start: 0,
            tokens: 3,
            occurrences: 1,
            unigram_logprob: -9.0,
            owners: vec![OwnerCount { owner: 2, documents: 1 }],
        };
        let evidence = Evidence { owners: 3, spans: vec![span], ..Evidence::default() };
        let shares = Harness::new().score::<Stamp>(&evidence);
        assert_eq!(shares, Ok(vec![Share { owner: 0, parts: SHARES_TOTAL }]));
        assert_eq!(Harness::new().score::<Stamp>(&Evidence::default()), Ok(vec![]));
    }
}
