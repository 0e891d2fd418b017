//! A router that picks the adapter whose training corpus is closest to the prompt.
//!
//! Each corpus is an n-gram model with back-off over the host's counts; its score is by how much, per
//! token, it explains the last user message better than the tokens' frequency in all corpora does.
//! Words that every corpus has tell nothing apart and count for nothing; a word that a corpus lacks
//! costs a bounded amount, so a paraphrase is not lost over one word; and a prompt of one or two tokens
//! proves little and scores little. Below `min_score` nothing is close and the base model answers.
//!
//! It sees counts, never the text of a corpus. Ties go by name. A corpus that is gone by the time it is
//! asked for leaves the choice to the base model rather than failing the request.

#![forbid(unsafe_code)]

mod score;
mod settings;

use mortise_sdk::log::{self, Level};
use mortise_sdk::{
    Attr, Candidate, Decision, Message, RequestInfo, Result, Role, Router, config, corpus, metrics,
};

use crate::score::Corpus;
use crate::settings::Settings;

/// Most bytes of the prompt that are looked at: what a topic needs, and a bound on a call's time.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Longest run of tokens that is counted.
const NGRAM_TOKENS_MAX: u32 = 4;

struct ClosestCorpus {
    settings: Settings,
}

mortise_sdk::export!(router: ClosestCorpus);

impl Router for ClosestCorpus {
    fn new() -> Result<Self> {
        let settings: Settings = config::read()?;
        settings.check()?;
        Ok(Self { settings })
    }

    fn route(
        &mut self,
        _request: &RequestInfo,
        messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<Decision> {
        let decision = match closest(&prompt(messages), candidates)? {
            Some(closest) if self.settings.accepts(closest.score, closest.margin) => {
                Decision::To(closest.adapter)
            }
            _ => Decision::Pass,
        };
        metrics::count(if decision == Decision::Pass { "passed" } else { "routed" }, 1);
        Ok(decision)
    }
}

/// The last user message, or what of it is looked at.
fn prompt(messages: &[Message]) -> String {
    let last = messages.iter().rev().find(|message| message.role == Role::User);
    let mut text = last.map(Message::text).unwrap_or_default();
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

struct Closest {
    adapter: String,
    score: f64,
    /// How much less the second corpus scores; unbounded for the only one.
    margin: f64,
}

/// The best corpus among those of the candidates; `None` without any, or for an empty prompt.
fn closest(text: &str, candidates: &[Candidate]) -> Result<Option<Closest>> {
    let is_candidate =
        |adapter: &str| candidates.iter().any(|known| known.is_adapter && known.model == adapter);
    let mut infos = corpus::list();
    infos.retain(|info| info.tokens > 0 && is_candidate(&info.adapter));
    infos.sort_by(|a, b| a.adapter.cmp(&b.adapter));
    if infos.is_empty() || text.is_empty() {
        return Ok(None);
    }
    let adapters: Vec<String> = infos.iter().map(|info| info.adapter.clone()).collect();
    let mut corpora: Vec<Corpus> = infos.iter().map(|info| Corpus::new(info.tokens)).collect();
    for n in 1..=NGRAM_TOKENS_MAX {
        match corpus::ngram_counts(&adapters, text, n) {
            Ok(rows) => corpora.iter_mut().zip(rows).for_each(|(corpus, row)| corpus.push(row)),
            Err(error) if error.code == "not-found" => {
                log::warn(&format!("a corpus went away: {}", error.message));
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    let mut scored: Vec<(f64, String)> =
        score::scores(&corpora).into_iter().zip(adapters).collect();
    // Stable: equals stay in the order of their names.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    if log::enabled(Level::Debug) {
        let fields: Vec<Attr> =
            scored.iter().map(|(score, adapter)| Attr::new(adapter.clone(), *score)).collect();
        log::log(Level::Debug, "scores", &fields);
    }
    let margin = scored.get(1).map_or(f64::INFINITY, |second| scored[0].0 - second.0);
    let (score, adapter) = scored.swap_remove(0);
    Ok(Some(Closest { adapter, score, margin }))
}

#[cfg(test)]
mod tests;
