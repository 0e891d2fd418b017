//! Guesses by prompt lookup: what followed the last tokens where they stood before. Knows nothing of
//! models; a wrong guess costs a row.

use request::TokenId;

use crate::config::SpeculativeConfig;

/// Guesses up to `count` tokens behind `tokens`: the continuation of the longest suffix of
/// `prompt_lookup_min` to `prompt_lookup_max` tokens that stands there before, of several the last.
pub(crate) fn propose(
    tokens: &[TokenId],
    config: &SpeculativeConfig,
    count: usize,
    drafts: &mut Vec<TokenId>,
) {
    let Some((last, _)) = tokens.split_last() else { return };
    let (mut longest, mut continuation) = (0, None);
    for end in (config.prompt_lookup_min..tokens.len()).rev() {
        if tokens[end - 1] != *last {
            continue;
        }
        let most = config.prompt_lookup_max.min(end);
        let same = (1..=most).take_while(|back| tokens[end - back] == tokens[tokens.len() - back]);
        let length = same.count();
        if length > longest {
            (longest, continuation) = (length, Some(end));
            if length == config.prompt_lookup_max {
                break;
            }
        }
    }
    let Some(start) = continuation.filter(|_| longest >= config.prompt_lookup_min) else { return };
    for at in start..start + count {
        // Where the continuation reaches the end it goes on with itself: a period repeats.
        let token = tokens.get(at).copied().unwrap_or_else(|| drafts[at - tokens.len()]);
        drafts.push(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_then_latest_repetition_goes_on() {
        let config = SpeculativeConfig {
            prompt_lookup_min: 2,
            prompt_lookup_max: 3,
            ..SpeculativeConfig::default()
        };
        let check = |tokens: &[TokenId], count: usize, expect: &[TokenId]| {
            let mut drafts = Vec::new();
            propose(tokens, &config, count, &mut drafts);
            assert_eq!(drafts, expect, "{tokens:?}");
        };
        check(&[], 4, &[]);
        check(&[1], 4, &[]);
        check(&[1, 2, 3, 4], 4, &[]);
        // One token alone is too little.
        check(&[2, 9, 1, 2], 4, &[]);
        check(&[1, 2, 7, 8, 9, 1, 2], 3, &[7, 8, 9]);
        check(&[1, 2, 7, 8, 9, 1, 2], 1, &[7]);
        // Two stand together twice, the later counts; three once, and that counts more.
        check(&[1, 2, 5, 1, 2, 6, 1, 2], 2, &[6, 1]);
        check(&[4, 1, 2, 5, 8, 1, 2, 6, 4, 1, 2], 2, &[5, 8]);
        // A period goes on beyond the end.
        check(&[3, 3, 3], 5, &[3, 3, 3, 3, 3]);
        check(&[1, 2, 1, 2, 1], 5, &[2, 1, 2, 1, 2]);
    }
}
