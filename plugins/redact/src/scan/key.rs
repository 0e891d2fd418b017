//! API keys by the prefixes that their issuers gave them for this purpose.

/// A prefix, and the fewest characters after it.
const PREFIXES: &[(&[u8], usize)] = &[
    // OpenAI and Anthropic.
    (b"sk-", 20),
    // Stripe.
    (b"sk_live_", 16),
    (b"sk_test_", 16),
    (b"rk_live_", 16),
    (b"whsec_", 24),
    // GitHub and GitLab.
    (b"ghp_", 30),
    (b"gho_", 30),
    (b"ghu_", 30),
    (b"ghs_", 30),
    (b"ghr_", 30),
    (b"github_pat_", 22),
    (b"glpat-", 20),
    // Slack.
    (b"xoxa-", 10),
    (b"xoxb-", 10),
    (b"xoxp-", 10),
    (b"xoxr-", 10),
    (b"xoxs-", 10),
    (b"xapp-", 10),
    // Google, Hugging Face, npm, PyPI, Shopify, DigitalOcean.
    (b"AIza", 35),
    (b"hf_", 30),
    (b"npm_", 30),
    (b"pypi-", 50),
    (b"shpat_", 32),
    (b"dop_v1_", 60),
];
/// Prefixes of AWS access key ids, which have exactly 16 characters more.
const AWS: &[&[u8]] = &[b"AKIA", b"ASIA", b"ABIA", b"ACCA"];
/// Fewest letters and digits in a row that a phrase with hyphens does not have: with both kinds, or
/// else with both cases.
const STRONG_BYTES_MIN: usize = 10;
/// See [`STRONG_BYTES_MIN`].
const MIXED_CASE_BYTES_MIN: usize = 20;

pub(super) fn scan(bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let in_run = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| in_run(byte)).count();
        if length >= 14
            && let Some(start) = key_start(&bytes[at..at + length])
        {
            found(at + start, at + length);
        }
        at += length.max(1);
    }
}

/// Where the first key of a run of letters, digits, `-` and `_` starts. It goes to the run's end.
fn key_start(run: &[u8]) -> Option<usize> {
    let strong = last_strong(run);
    let mut starts = (0..run.len()).filter(|at| *at == 0 || !run[at - 1].is_ascii_alphanumeric());
    starts.find(|start| {
        let rest = &run[*start..];
        let is_key = |(prefix, tail_min): &(&[u8], usize)| {
            let tail = rest.len().saturating_sub(prefix.len());
            let tail_start = start + prefix.len();
            rest.starts_with(prefix)
                && tail >= *tail_min
                && strong.is_some_and(|end| end >= tail_start + STRONG_BYTES_MIN)
        };
        is_aws(rest) || PREFIXES.iter().any(is_key)
    })
}

fn is_aws(rest: &[u8]) -> bool {
    let upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    AWS.iter().any(|prefix| rest.starts_with(prefix))
        && rest.len() >= 20
        && rest[..20].iter().all(upper)
        && rest.get(20).is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// The last piece of a run that no phrase would have.
fn last_strong(run: &[u8]) -> Option<usize> {
    let mut end = run.len();
    loop {
        let start = run[..end].iter().rposition(|byte| !byte.is_ascii_alphanumeric());
        let piece_start = start.map_or(0, |at| at + 1);
        let piece = &run[piece_start..end];
        let has = |kind: fn(&u8) -> bool| piece.iter().any(kind);
        let both_kinds = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
        let both_cases = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
        if piece.len() >= STRONG_BYTES_MIN && both_kinds
            || piece.len() >= MIXED_CASE_BYTES_MIN && both_cases
        {
            return Some(end);
        }
        end = start?;
    }
}
