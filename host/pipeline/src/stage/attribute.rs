//! Whose data an answer came from: spans of the answer in the adapter's corpus, scored by a plugin.
//!
//! Only text that was sent is matched: what a postprocessor masked does not come back as evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::request::TokenId;
use corpus::{Segment, Span, SpanLimits};
use plugin_host::{Evidence, EvidenceSpan, Plugin, Share};

use crate::answer::{Attribution, AttributionStatus, Credit, MatchedSpan};
use crate::context::Context;
use crate::corpus_store::CorpusRef;
use crate::error::PipelineError;
use crate::shared::Shared;
use crate::stage::blocking;
use crate::stage::combine::combine;
use crate::stage::generate::ChoiceEnd;

/// Says what kind of evidence this is; part of the method in receipts.
const EVIDENCE: &str = "spans@1";
/// Why nobody is credited for the base model, or an adapter without a corpus.
const UNKNOWN_NOTE: &str = "no corpus is known for the model that answered";
/// What exact matching cannot show.
const LIMITS_NOTE: &str =
    "credits follow word-for-word spans; a paraphrase or an inference leaves none";

/// An attribution with what only the receipt needs.
#[derive(Clone, Debug)]
pub(crate) struct Attributed {
    pub(crate) attribution: Attribution,
    /// Digest of the corpus segment that was searched.
    pub(crate) segment: Option<[u8; 32]>,
}

/// One choice's tokens and its index.
type Output = (u32, Vec<TokenId>);

/// Attributes the choices of a request to the corpus of the adapter that answered, or to those of all
/// that answered together.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    context: &mut Context,
    choices: &[ChoiceEnd],
) -> Result<Attributed, PipelineError> {
    let mut parts = Vec::new();
    for corpus in std::mem::take(&mut context.corpora) {
        let weight = corpus.weight;
        parts.push((weight, to_corpus(shared, context, choices, corpus).await?));
    }
    let combined = combine(parts, shared.config.spans.spans_max);
    Ok(combined.unwrap_or_else(|| without(None, UNKNOWN_NOTE)))
}

/// Attributes the choices to one corpus.
async fn to_corpus(
    shared: &Arc<Shared>,
    context: &mut Context,
    choices: &[ChoiceEnd],
    corpus: CorpusRef,
) -> Result<Attributed, PipelineError> {
    let corpora = Arc::clone(&shared.corpora);
    let segment = match blocking(move || corpora.open(&corpus)).await? {
        Ok(Some(segment)) => segment,
        Ok(None) => return Ok(without(None, UNKNOWN_NOTE)),
        Err(error) => {
            tracing::warn!(request = %context.request.id, %error, "a corpus could not be opened");
            let message = "the corpus of the model that answered could not be opened".to_owned();
            return Err(PipelineError::Internal { message });
        }
    };
    let outputs = outputs(shared, choices)?;
    let (searched, limits) = (Arc::clone(&segment), shared.config.spans);
    let found = blocking(move || search(&searched, &outputs, &limits)).await?;
    let digest = Some(segment.digest());
    if found.found.is_empty() {
        return Ok(without(digest, LIMITS_NOTE));
    }
    let Some(scorer) = context.chain.scorer() else {
        return Ok(without(digest, "no scorer plugin is active"));
    };
    let info = context.info();
    let (guest, evidence) = (Arc::clone(&scorer), evidence(&segment, &found));
    let outcome = blocking(move || guest.score(&info, &evidence)).await?;
    let shares = match outcome {
        Ok(shares) => {
            context.settle(&scorer, Ok(()))?;
            shares
        }
        // The answer has been sent: a scorer's fault costs the shares, never the answer.
        Err(fault) => {
            let note = format!("the scorer failed: {}", fault.kind);
            context.scorer_fault(&scorer, &fault);
            let mut failed = without(digest, &note);
            failed.attribution.status = AttributionStatus::Failed;
            return Ok(failed);
        }
    };
    Ok(scored(shared, &segment, &scorer, (shares, found.found)))
}

/// An attribution that credits nobody, and why.
pub(crate) fn without(segment: Option<[u8; 32]>, note: &str) -> Attributed {
    let attribution = Attribution {
        status: AttributionStatus::None,
        method: EVIDENCE.to_owned(),
        credits: Vec::new(),
        spans: Vec::new(),
        note: Some(note.to_owned()),
    };
    Attributed { attribution, segment }
}

/// An attribution that could not be made because the host failed.
pub(crate) fn failed(error: &PipelineError) -> Attributed {
    let mut failed = without(None, &error.to_string());
    failed.attribution.status = AttributionStatus::Failed;
    failed
}

/// The tokens to search for: the engine's own where the text was sent as it was, else the sent
/// text's.
fn outputs(shared: &Shared, choices: &[ChoiceEnd]) -> Result<Vec<Output>, PipelineError> {
    let encode = |text: &str| {
        let message = |error| format!("failed to encode the answer: {error}");
        let tokens = shared.tokenizer.encode(text, false);
        tokens.map_err(|error| PipelineError::Internal { message: message(error) })
    };
    let output = |(index, choice): (usize, &ChoiceEnd)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let verbatim = choice.verbatim && !choice.tokens.is_empty();
        Ok((index, if verbatim { choice.tokens.clone() } else { encode(&choice.text)? }))
    };
    choices.iter().enumerate().map(output).collect()
}

/// What a search found.
struct Search {
    found: Vec<Found>,
    /// Tokens of all outputs.
    tokens: usize,
}

/// A span with the choice it is in and its tokens.
struct Found {
    choice: u32,
    /// Where the span's choice begins, if all choices are read as one.
    base: usize,
    tokens: Vec<TokenId>,
    span: Span,
}

fn search(segment: &Segment, outputs: &[Output], limits: &SpanLimits) -> Search {
    let mut search = Search { found: Vec::new(), tokens: 0 };
    for (choice, tokens) in outputs {
        let base = search.tokens;
        for span in segment.spans(tokens, limits) {
            let start = span.start as usize;
            let tokens = tokens[start..start + span.len as usize].to_vec();
            search.found.push(Found { choice: *choice, base, tokens, span });
        }
        search.tokens += tokens.len();
    }
    search
}

/// Choices one behind the other: a scorer would take spans of different choices that begin at the same
/// place for spans that overlap.
fn evidence(segment: &Segment, search: &Search) -> Evidence {
    let number = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    let spans = search.found.iter().map(|found| EvidenceSpan {
        start: number(found.base).saturating_add(found.span.start),
        tokens: found.span.len,
        occurrences: found.span.count,
        unigram_logprob: found.span.unigram_logprob,
        owners: found.span.owners.iter().map(|owner| (owner.owner, owner.documents)).collect(),
    });
    Evidence {
        corpus_tokens: segment.tokens(),
        output_tokens: number(search.tokens),
        owners: segment.owners(),
        spans: spans.collect(),
    }
}

fn scored(
    shared: &Shared,
    segment: &Segment,
    scorer: &Plugin,
    (shares, found): (Vec<Share>, Vec<Found>),
) -> Attributed {
    // Two owner numbers may carry one name; the receipt credits names.
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for share in shares.iter().filter(|share| share.parts > 0) {
        *by_name.entry(segment.owner_name(share.owner)).or_default() += share.parts;
    }
    let mut credits: Vec<Credit> = by_name
        .into_iter()
        .map(|(name, parts)| Credit { contributor: name.to_owned(), parts_per_billion: parts })
        .collect();
    credits.sort_by_key(|credit| std::cmp::Reverse(credit.parts_per_billion));
    let status =
        if credits.is_empty() { AttributionStatus::None } else { AttributionStatus::Scored };
    let attribution = Attribution {
        status,
        method: format!("{EVIDENCE}+{}@{}", scorer.name(), scorer.version()),
        credits,
        spans: found.iter().map(|found| matched(shared, segment, found)).collect(),
        note: Some(LIMITS_NOTE.to_owned()),
    };
    Attributed { attribution, segment: Some(segment.digest()) }
}

fn matched(shared: &Shared, segment: &Segment, found: &Found) -> MatchedSpan {
    let names = found.span.owners.iter().map(|owner| segment.owner_name(owner.owner).to_owned());
    let documents = found.span.documents.iter();
    MatchedSpan {
        choice: found.choice,
        text: shared.tokenizer.decode(&found.tokens, true).unwrap_or_default(),
        tokens: found.span.len,
        occurrences: found.span.count,
        contributors: names.collect(),
        documents: documents.map(|document| segment.document_id(*document).to_owned()).collect(),
    }
}
