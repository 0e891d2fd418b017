//! What is asked: prompts, lengths, adapters and times of arrival, all from one seed. The same seed
//! asks every server the same.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::BenchError;
use crate::shapes::{FIRST_WORD, word};

/// Stream of the generator that times of arrival come from; requests have those of their numbers.
const ARRIVALS: u64 = u64::MAX;
/// Most adapters: their weights are held as a table.
const ADAPTERS_MAX: usize = 1 << 24;

/// Which adapter a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// None: the base.
    None,
    /// Every stream its own, by turns if there are more streams; in an open loop by turns.
    Distinct,
    /// The first, always.
    Same,
    /// Each as likely as any other.
    Uniform,
    /// The one of rank k with a weight of 1 / k^s; the first is the most popular.
    Zipf(f64),
}

impl std::str::FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "distinct" => Ok(Self::Distinct),
            "same" => Ok(Self::Same),
            "uniform" => Ok(Self::Uniform),
            _ => {
                let exponent = text.strip_prefix("zipf:").and_then(|s| s.parse::<f64>().ok());
                let exponent = exponent.filter(|s| s.is_finite() && *s >= 0.0);
                let wanted = "none, distinct, same, uniform or zipf:S with S from 0";
                exponent.map(Self::Zipf).ok_or_else(|| format!("{text:?} is not {wanted}"))
            }
        }
    }
}

impl std::fmt::Display for Popularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Distinct => f.write_str("distinct"),
            Self::Same => f.write_str("same"),
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

/// A number of tokens, or a range of which each number is as likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Fewest, at least 1.
    pub min: usize,
    /// Most.
    pub max: usize,
}

impl std::str::FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.parse::<usize>().ok();
        match (number(min), number(max)) {
            (Some(min), Some(max)) if 1 <= min && min <= max => Ok(Self { min, max }),
            _ => Err(format!("{text:?} is neither a number from 1 nor a range like 64..256")),
        }
    }
}

impl std::fmt::Display for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            return write!(f, "{}", self.min);
        }
        write!(f, "{}..{}", self.min, self.max)
    }
}

/// How prompts are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// Token ids: exact lengths with every tokenizer, `/v1/completions` alone.
    Ids,
    /// Words that made tokenizers take for one token each; other tokenizers cut them smaller.
    Text,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Ids(Vec<u32>),
    Text(String),
}

/// What requests of a run are like.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Tokens of each prompt.
    pub prompt_tokens: Tokens,
    /// Tokens of each answer.
    pub output_tokens: Tokens,
    /// How prompts are sent.
    pub form: PromptForm,
    /// Prompts have ids below this.
    pub vocab: usize,
    /// Adapters that are asked for.
    pub adapters: usize,
    /// How often each.
    pub popularity: Popularity,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) prompt: Prompt,
    pub(super) output_tokens: usize,
    pub(super) adapter: Option<usize>,
}

/// A workload that was checked, and its seed.
#[derive(Debug)]
pub(super) struct Plan {
    workload: Workload,
    seed: u64,
    /// Sum of the weights of all adapters up to each; empty unless Zipf.
    cumulative: Vec<f64>,
}

impl Plan {
    /// Checks the workload.
    pub(super) fn new(workload: &Workload, seed: u64) -> Result<Self, BenchError> {
        let Workload { adapters, popularity, vocab, .. } = *workload;
        if popularity != Popularity::None && !(1..=ADAPTERS_MAX).contains(&adapters) {
            let reason = format!("{popularity} needs 1 to {ADAPTERS_MAX}, got {adapters}");
            return Err(BenchError::setting("adapters", reason));
        }
        if vocab <= FIRST_WORD || u32::try_from(vocab).is_err() {
            let reason = format!("must be above {FIRST_WORD} and below 2^32, is {vocab}");
            return Err(BenchError::setting("vocab", reason));
        }
        let mut cumulative = Vec::new();
        if let Popularity::Zipf(exponent) = popularity {
            let weights = (1..=adapters).map(|rank| (rank as f64).powf(-exponent));
            cumulative = weights
                .scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                })
                .collect();
        }
        Ok(Self { workload: workload.clone(), seed, cumulative })
    }

    /// What everything is drawn from.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Adapters that are asked for.
    pub(super) fn adapters(&self) -> usize {
        self.workload.adapters
    }

    /// The request with number `index`, sent by `stream`.
    pub(super) fn request(&self, index: u64, stream: usize) -> Request {
        let mut rng = self.rng(index);
        let adapters = self.workload.adapters;
        let adapter = match self.workload.popularity {
            Popularity::None => None,
            Popularity::Same => Some(0),
            Popularity::Distinct => Some(stream % adapters),
            Popularity::Uniform => Some(rng.random_range(0..adapters)),
            Popularity::Zipf(_) => Some(self.zipf(&mut rng)),
        };
        let mut draw = |tokens: Tokens| rng.random_range(tokens.min..=tokens.max);
        let prompt_tokens = draw(self.workload.prompt_tokens);
        let output_tokens = draw(self.workload.output_tokens);
        let ids = (0..prompt_tokens).map(|_| rng.random_range(FIRST_WORD..self.workload.vocab));
        let prompt = match self.workload.form {
            PromptForm::Ids => Prompt::Ids(ids.map(|id| id as u32).collect()),
            PromptForm::Text => {
                Prompt::Text(ids.map(|id| format!(" {}", word(id - FIRST_WORD))).collect())
            }
        };
        Request { prompt, output_tokens, adapter }
    }

    /// Times between arrivals of a Poisson process.
    pub(super) fn intervals(&self, rate_per_s: f64) -> impl Iterator<Item = Duration> + use<> {
        let mut rng = self.rng(ARRIVALS);
        std::iter::repeat_with(move || {
            let uniform: f64 = rng.random();
            Duration::from_secs_f64(-(1.0 - uniform).ln() / rate_per_s)
        })
    }

    fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        rng
    }

    fn zipf(&self, rng: &mut impl Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let point = rng.random::<f64>() * total;
        let rank = self.cumulative.partition_point(|sum| *sum <= point);
        rank.min(self.workload.adapters - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(adapters: usize, popularity: Popularity) -> Workload {
        Workload {
            prompt_tokens: Tokens { min: 3, max: 9 },
            output_tokens: Tokens { min: 5, max: 5 },
            form: PromptForm::Ids,
            vocab: 1000,
            adapters,
            popularity,
        }
    }

    fn counts(adapters: usize, popularity: Popularity, requests: u64) -> Vec<usize> {
        let plan = Plan::new(&workload(adapters, popularity), 3).expect("a plan");
        let mut counts = vec![0; adapters];
        for index in 0..requests {
            counts[plan.request(index, index as usize % 5).adapter.expect("an adapter")] += 1;
        }
        counts
    }

    #[test]
    fn popularity_is_as_named() {
        assert_eq!(counts(4, Popularity::Same, 8), [8, 0, 0, 0]);
        assert_eq!(counts(4, Popularity::Distinct, 20), [8, 4, 4, 4]);
        for count in counts(10, Popularity::Uniform, 10_000) {
            assert!((850..1150).contains(&count), "{count}");
        }
        // 1 + 1/2 + 1/3 + 1/4 = 25/12, so the shares are 48, 24, 16 and 12 percent.
        let zipf = counts(4, Popularity::Zipf(1.0), 10_000);
        for (count, expect) in zipf.iter().zip([4800, 2400, 1600, 1200]) {
            assert!(count.abs_diff(expect) < 200, "{zipf:?}");
        }
        for count in counts(10, Popularity::Zipf(0.0), 10_000) {
            assert!((850..1150).contains(&count), "{count}");
        }
        let none = Plan::new(&workload(0, Popularity::None), 3).expect("a plan");
        assert_eq!(none.request(7, 1).adapter, None);
    }

    #[test]
    fn the_seed_and_the_number_decide_a_request() {
        let plan = |seed| Plan::new(&workload(5, Popularity::Uniform), seed).expect("a plan");
        assert_eq!(plan(1).request(4, 0), plan(1).request(4, 0));
        assert_ne!(plan(1).request(4, 0), plan(1).request(5, 0));
        assert_ne!(plan(1).request(4, 0), plan(2).request(4, 0));
        let mut lengths = std::collections::BTreeSet::new();
        for index in 0..200 {
            let Prompt::Ids(ids) = plan(1).request(index, 0).prompt else { panic!("ids") };
            assert!(ids.iter().all(|id| (FIRST_WORD as u32..1000).contains(id)));
            lengths.insert(ids.len());
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), (3..=9).collect::<Vec<_>>());
    }

    #[test]
    fn text_has_a_word_for_each_id() {
        let ids = Plan::new(&workload(0, Popularity::None), 3).expect("a plan").request(0, 0);
        let text = Workload { form: PromptForm::Text, ..workload(0, Popularity::None) };
        let text = Plan::new(&text, 3).expect("a plan").request(0, 0);
        let (Prompt::Ids(ids), Prompt::Text(text)) = (ids.prompt, text.prompt) else {
            panic!("one of each form");
        };
        let words: Vec<String> = ids.iter().map(|id| word(*id as usize - FIRST_WORD)).collect();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words);
    }

    #[test]
    fn arrivals_are_a_poisson_process() {
        let plan = Plan::new(&workload(0, Popularity::None), 11).expect("a plan");
        let count = 20_000;
        let seconds: Vec<f64> =
            plan.intervals(50.0).take(count).map(|interval| interval.as_secs_f64()).collect();
        let mean = seconds.iter().sum::<f64>() / count as f64;
        assert!((mean - 0.02).abs() < 0.0005, "{mean}");
        // An exponential distribution deviates by its mean, and has 1/e of it beyond the mean.
        let variance =
            seconds.iter().map(|second| (second - mean).powi(2)).sum::<f64>() / count as f64;
        assert!((variance.sqrt() - 0.02).abs() < 0.001, "{variance}");
        let beyond = seconds.iter().filter(|second| **second > 0.02).count();
        assert!(beyond.abs_diff(7358) < 250, "{beyond}");
        assert!(plan.intervals(50.0).take(100).eq(plan.intervals(50.0).take(100)));
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let check = |text: &str, expect: Option<Popularity>| {
            assert_eq!(text.parse::<Popularity>().ok(), expect, "{text}");
            if let Some(popularity) = expect {
                assert_eq!(popularity.to_string(), text);
            }
        };
        check("none", Some(Popularity::None));
        check("distinct", Some(Popularity::Distinct));
        check("same", Some(Popularity::Same));
        check("uniform", Some(Popularity::Uniform));
        check("zipf:1.2", Some(Popularity::Zipf(1.2)));
        for text in ["zipf", "zipf:", "zipf:-1", "zipf:NaN", "Uniform", ""] {
            check(text, None);
        }
        let check = |text: &str, expect: Option<(usize, usize)>| {
            let tokens = text.parse::<Tokens>().ok();
            assert_eq!(tokens.map(|tokens| (tokens.min, tokens.max)), expect, "{text}");
            if let Some(tokens) = tokens {
                assert_eq!(tokens.to_string(), text);
            }
        };
        check("1", Some((1, 1)));
        check("64..256", Some((64, 256)));
        for text in ["0", "0..4", "5..4", "..4", "a", "", "1..2..3"] {
            check(text, None);
        }
    }

    #[test]
    fn workloads_that_can_not_be_are_refused() {
        let check = |workload: Workload, expect: Option<&str>| {
            let error = Plan::new(&workload, 0).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        let none = "adapters: uniform needs 1 to 16777216, got 0";
        check(workload(0, Popularity::Uniform), Some(none));
        check(workload(1, Popularity::Uniform), None);
        let many = "adapters: same needs 1 to 16777216, got 16777217";
        check(workload(ADAPTERS_MAX + 1, Popularity::Same), Some(many));
        let small = Workload { vocab: FIRST_WORD, ..workload(1, Popularity::Same) };
        check(small, Some("vocab: must be above 262 and below 2^32, is 262"));
        check(Workload { vocab: FIRST_WORD + 1, ..workload(1, Popularity::Same) }, None);
    }
}
