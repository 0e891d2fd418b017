//! How close a text is to each of several corpora, from n-gram counts alone.
//!
//! A corpus gives a token the probability of its back-off model: the share of the runs before it
//! that go on with it, smoothed by the model of one token less, down to the token's own frequency,
//! which is smoothed by the background. The background is the mean of the token's frequency in all
//! corpora, each with the same weight whatever its size. The score is the mean log ratio of the two
//! in nats: 0 for a corpus that says no more than the background.

/// Counts of the shorter run that the longer must outweigh.
const BACKOFF_COUNTS: f64 = 4.0;
/// Part of the background in a token's frequency: none is 0, in a small corpus no more than in a large.
const BACKGROUND_PART: f64 = 0.1;
/// Lowest log ratio of a token: what one word that a corpus lacks may cost.
const TOKEN_NATS_MIN: f64 = -1.0;
/// Tokens without evidence either way that each text is topped up with.
const NEUTRAL_TOKENS: f64 = 3.0;

/// One corpus: its size, and the counts of the text's runs in it.
pub(crate) struct Corpus {
    tokens: f64,
    /// `runs[n - 1][j]`: how often the run of `n` tokens from token `j` of the text stands in it.
    runs: Vec<Vec<u64>>,
}

impl Corpus {
    pub(crate) fn new(tokens: u64) -> Self {
        Self { tokens: tokens as f64, runs: Vec::new() }
    }

    /// Takes the counts of the next longer runs.
    pub(crate) fn push(&mut self, counts: Vec<u64>) {
        self.runs.push(counts);
    }

    /// How often the run of `n` tokens that ends with token `at` stands here; `None` where the text
    /// has no such run.
    fn count(&self, n: usize, at: usize) -> Option<f64> {
        let start = (at + 1).checked_sub(n)?;
        Some(*self.runs.get(n - 1)?.get(start)? as f64)
    }

    fn frequency(&self, at: usize) -> f64 {
        self.count(1, at).unwrap_or_default() / self.tokens
    }

    /// Probability of token `at` after those before it.
    fn probability(&self, at: usize, background: f64) -> f64 {
        let own = (1.0 - BACKGROUND_PART) * self.frequency(at);
        let mut probability = own + BACKGROUND_PART * background;
        for n in 2..=self.runs.len() {
            let before = at.checked_sub(1).and_then(|before| self.count(n - 1, before));
            let (Some(before), Some(run)) = (before, self.count(n, at)) else { break };
            if before == 0.0 {
                break;
            }
            probability = (run + BACKOFF_COUNTS * probability) / (before + BACKOFF_COUNTS);
        }
        probability
    }
}

/// The score of each corpus, always finite.
pub(crate) fn scores(corpora: &[Corpus]) -> Vec<f64> {
    let tokens = corpora.first().and_then(|corpus| corpus.runs.first()).map_or(0, Vec::len);
    let all: f64 = corpora.iter().map(|corpus| corpus.tokens).sum();
    let background = |at: usize| {
        let sum: f64 = corpora.iter().map(|corpus| corpus.frequency(at)).sum();
        // A token that nobody has is as rare as one that stands once.
        if sum > 0.0 { sum / corpora.len() as f64 } else { 1.0 / all }
    };
    let backgrounds: Vec<f64> = (0..tokens).map(background).collect();
    let nats = |corpus: &Corpus| -> f64 {
        let token = |(at, background): (usize, &f64)| {
            (corpus.probability(at, *background) / background).ln().max(TOKEN_NATS_MIN)
        };
        backgrounds.iter().enumerate().map(token).sum()
    };
    corpora.iter().map(|corpus| nats(corpus) / (tokens as f64 + NEUTRAL_TOKENS)).collect()
}
