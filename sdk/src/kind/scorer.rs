//! Scorers: from evidence to shares.

use std::marker::PhantomData;

use crate::bindings::scorer::exports::mortise::hooks::scorer as wit;
use crate::convert::{all, both_ways};
use crate::export::{Identity, with_plugin};
use crate::types::{Attr, RequestInfo, Result};

/// What shares sum to, unless there are none.
pub const SHARES_TOTAL: u32 = 1_000_000_000;

/// How many of an owner's documents hold a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerCount {
    /// The owner's number.
    pub owner: u32,
    /// Documents.
    pub documents: u32,
}

/// A run of output tokens that stands in the corpus word for word and could not be longer.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// First token, counted in the output.
    pub start: u32,
    /// Number of tokens.
    pub tokens: u32,
    /// Times it stands in the corpus.
    pub occurrences: u64,
    /// Sum of the natural log of each token's share of the corpus: at most 0, lower is rarer.
    pub unigram_logprob: f64,
    /// Who wrote the documents that hold it.
    pub owners: Vec<OwnerCount>,
}

/// What an answer has in common with the corpus of its adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Tokens in the corpus.
    pub corpus_tokens: u64,
    /// Tokens in the output.
    pub output_tokens: u32,
    /// Owners are numbers from 0 to `owners` - 1. Who they are is not the scorer's business.
    pub owners: u32,
    /// All maximal spans.
    pub spans: Vec<Span>,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// One owner's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The owner's number.
    pub owner: u32,
    /// Parts per billion.
    pub parts: u32,
}

/// Turns evidence into shares. Whoever disputes a receipt runs the scorer again, so it should be a
/// function of its evidence and its settings; it gets no clock and no randomness.
///
/// ```
/// use mortise_sdk::{Evidence, OwnerCount, RequestInfo, Result, SHARES_TOTAL, Scorer, Share, Span};
///
/// /// Everything to the first owner of the longest span.
/// struct WinnerTakesAll;
///
/// impl Scorer for WinnerTakesAll {
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn score(&mut self, _request: &RequestInfo, evidence: &Evidence) -> Result<Vec<Share>> {
///         let longest = evidence.spans.iter().max_by_key(|span| span.tokens);
///         let owner = longest.and_then(|span| span.owners.first());
///         Ok(owner.map(|o| Share { owner: o.owner, parts: SHARES_TOTAL }).into_iter().collect())
///     }
/// }
///
/// mortise_sdk::export!(scorer: WinnerTakesAll);
///
/// let span = Span {
///     start: 0,
///     tokens: 4,
///     occurrences: 2,
///     unigram_logprob: -30.0,
///     owners: vec![OwnerCount { owner: 1, documents: 2 }],
/// };
/// let evidence = Evidence { owners: 3, spans: vec![span], ..Evidence::default() };
/// let shares = mortise_sdk::testing::Harness::new().score::<WinnerTakesAll>(&evidence);
/// assert_eq!(shares, Ok(vec![Share { owner: 1, parts: 1_000_000_000 }]));
/// ```
pub trait Scorer: Sized + 'static {
    /// Reads the settings. Called once per instance, and when the plugin is installed: an error
    /// here leaves the version before in place.
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn new() -> Result<Self>;

    /// Shares that sum to exactly [`SHARES_TOTAL`] with each owner at most once, or none.
    ///
    /// # Errors
    /// The plugin's failure; the answer then has no shares, and its receipt says why.
    fn score(&mut self, request: &RequestInfo, evidence: &Evidence) -> Result<Vec<Share>>;
}

both_ways!(wit::OwnerCount, OwnerCount { owner, documents; into; lists });
both_ways!(wit::Span, Span {
    start, tokens, occurrences, unigram_logprob; into; lists owners
});
both_ways!(wit::Evidence, Evidence {
    corpus_tokens, output_tokens, owners; into; lists spans, attrs
});
both_ways!(wit::Share, Share { owner, parts; into; lists });

/// The exported interface of a [`Scorer`].
#[doc(hidden)]
pub struct Component<I>(PhantomData<I>);

impl<I: Identity<Plugin: Scorer>> wit::Guest for Component<I> {
    fn score(
        info: wit::RequestInfo,
        evidence: wit::Evidence,
    ) -> std::result::Result<Vec<wit::Share>, wit::Error> {
        let shares =
            with_plugin(|plugin: &mut I::Plugin| plugin.score(&info.into(), &evidence.into()))?;
        Ok(all(shares))
    }
}
