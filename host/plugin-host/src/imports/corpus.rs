//! `corpus`: counts in the adapters' corpora, where they were granted. Never a corpus's text.

use crate::bindings::corpus::{Host, Info};
use crate::bindings::types::Error;
use crate::guest::Guest;
use crate::imports::error;

/// Longest run that is counted, in tokens.
const NGRAM_TOKENS_MAX: u32 = 16;
/// Most corpora in one call.
const CORPORA_MAX: usize = 256;
/// Most counts that one call may come to, taking each byte of text for a token.
const COUNTS_MAX: usize = 4 << 20;

impl Host for Guest {
    fn list_corpora(&mut self) -> Vec<Info> {
        let list = self.lent.corpus.as_ref().map_or_else(Vec::new, |corpus| corpus.list());
        let info = |info: crate::types::CorpusInfo| Info {
            adapter: info.adapter,
            tokens: info.tokens,
            documents: info.documents,
            owners: info.owners,
        };
        list.into_iter().map(info).collect()
    }

    fn ngram_counts(
        &mut self,
        adapters: Vec<String>,
        text: String,
        n: u32,
    ) -> Result<Vec<Vec<u64>>, Error> {
        check(adapters.len(), text.len(), n).map_err(|message| error("invalid", message))?;
        match &self.lent.corpus {
            Some(corpus) => Ok(corpus.ngram_counts(&adapters, &text, n)?),
            None => Err(error("denied", "corpus was not granted")),
        }
    }
}

fn check(adapters: usize, text_bytes: usize, n: u32) -> Result<(), String> {
    if !(1..=NGRAM_TOKENS_MAX).contains(&n) {
        return Err(format!("n is {n}, not 1 to {NGRAM_TOKENS_MAX}"));
    }
    if adapters > CORPORA_MAX {
        return Err(format!("{adapters} corpora are more than {CORPORA_MAX}"));
    }
    if adapters.saturating_mul(text_bytes) > COUNTS_MAX {
        return Err(format!("corpora times bytes of text are more than {COUNTS_MAX}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn bounds_at_below_and_above() {
        let check = |adapters, text, n| super::check(adapters, text, n).is_ok();
        assert!(!check(1, 10, 0) && check(1, 10, 1) && check(1, 10, 16) && !check(1, 10, 17));
        assert!(check(256, 1, 1) && !check(257, 1, 1));
        assert!(check(4, 1 << 20, 1) && !check(4, (1 << 20) + 1, 1));
        assert!(!check(256, usize::MAX, 1));
    }
}
