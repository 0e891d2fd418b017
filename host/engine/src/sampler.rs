//! Logits to token: penalties, bias, cuts, and a draw that depends on nothing but the request.

use std::cell::RefCell;
use std::collections::HashMap;

use kernels::{BadLogit, LogitRows, SampleParams};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use request::{SamplingParams, TokenId, TokenLogprob};

/// Why no token could be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SampleError {
    #[error(transparent)]
    Logits(#[from] BadLogit),
    #[error("{0}")]
    Params(String),
}

/// What the next token may depend on besides the logits.
pub(crate) struct History<'a> {
    /// Distinct tokens of the prompt, sorted; only looked at under a repetition penalty.
    pub(crate) prompt: &'a [TokenId],
    /// How often each token stands in the answer; only looked at under a penalty.
    pub(crate) output_counts: &'a HashMap<TokenId, u32>,
    /// Tokens of the answer so far; also the number of the draw.
    pub(crate) output_tokens: u32,
    /// Tokens that would end the answer.
    pub(crate) end_tokens: &'a [TokenId],
}

/// Memory that a thread uses again for every row.
#[derive(Default)]
struct Scratch {
    logits: Vec<f32>,
    rows: LogitRows,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Chooses the next token from `logits` `[vocab]`.
///
/// # Errors
/// Logits that are NaN or positive infinity, or parameters outside their ranges.
pub(crate) fn sample(
    logits: &[f32],
    params: &SamplingParams,
    history: &History<'_>,
) -> Result<TokenId, SampleError> {
    let choice = choice(params, history.output_tokens);
    let choice = choice.checked().map_err(|error| SampleError::Params(error.to_string()))?;
    SCRATCH.with_borrow_mut(|Scratch { logits: adjusted, rows }| {
        if !adjusts(params, history) {
            return Ok(token_id(rows.sample(logits, &choice)?));
        }
        // Bias and penalties are finite and would hide no bad logit, but its name comes first.
        rows.peak(logits)?;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        adjust(adjusted, params, history);
        Ok(token_id(rows.sample(adjusted, &choice)?))
    })
}

/// The numbers of the draw that has so many before it.
fn choice(params: &SamplingParams, nth: u32) -> SampleParams {
    SampleParams {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        // A greedy choice needs no draw, and a generator costs more than a small row.
        draw: if params.is_greedy() { 0.0 } else { draw(params.seed, nth) },
    }
}

/// The numbers of the next `rows` draws, where [`sample`] would look at nothing but them and the logits;
/// `None` where it changes logits first or would refuse the numbers.
pub(crate) fn draws(
    params: &SamplingParams,
    history: &History<'_>,
    rows: usize,
) -> Option<Vec<SampleParams>> {
    if adjusts(params, history) {
        return None;
    }
    let nth = |row: usize| choice(params, history.output_tokens.saturating_add(row as u32));
    let draws: Vec<_> = (0..rows).map(nth).collect();
    draws.iter().all(|draw| draw.checked().is_ok()).then_some(draws)
}

/// Whether counts of tokens change the logits.
pub(crate) fn needs_counts(params: &SamplingParams) -> bool {
    let penalties = (params.presence_penalty, params.frequency_penalty);
    params.repetition_penalty != 1.0 || penalties != (0.0, 0.0)
}

fn adjusts(params: &SamplingParams, history: &History<'_>) -> bool {
    let forbids = history.output_tokens < params.min_tokens && !history.end_tokens.is_empty();
    needs_counts(params) || !params.logit_bias.is_empty() || forbids
}

/// Log probabilities under the model's own distribution: of `token`, and of the `top` likeliest.
///
/// # Errors
/// Logits that are NaN or positive infinity.
pub(crate) fn logprob(logits: &[f32], token: TokenId, top: u32) -> Result<TokenLogprob, BadLogit> {
    SCRATCH.with_borrow_mut(|Scratch { rows, .. }| {
        let total = rows.log_sum_exp(logits)?;
        let of = |token: usize| (f64::from(logits[token]) - total) as f32;
        let top = rows.likeliest(logits, top as usize)?;
        let top = top.into_iter().map(|token| (token_id(token), of(token))).collect();
        Ok(TokenLogprob { token, logprob: of(token as usize), top })
    })
}

fn token_id(token: usize) -> TokenId {
    TokenId::try_from(token).expect("a vocabulary has fewer than 2^32 tokens")
}

/// Penalties, bias and forbidden ends, in vLLM's order.
fn adjust(logits: &mut [f32], params: &SamplingParams, history: &History<'_>) {
    if params.repetition_penalty != 1.0 {
        let answered = history.output_counts.keys();
        let only_answered = answered.filter(|token| history.prompt.binary_search(token).is_err());
        for token in history.prompt.iter().chain(only_answered) {
            let logit = &mut logits[*token as usize];
            let penalty = params.repetition_penalty;
            // The smallest penalties would make an infinity, which is what a broken model looks like.
            let raised = (*logit / penalty).min(f32::MAX);
            *logit = if *logit > 0.0 { raised } else { *logit * penalty };
        }
    }
    if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
        for (token, count) in history.output_counts {
            let penalty = params.presence_penalty + params.frequency_penalty * *count as f32;
            logits[*token as usize] -= penalty;
        }
    }
    for (token, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += bias;
        }
    }
    if history.output_tokens < params.min_tokens {
        for token in history.end_tokens {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// A number in [0, 1) that depends on the seed and on how many draws came before, and so on nothing
/// else that runs.
fn draw(seed: u64, nth: u32) -> f64 {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(nth));
    rng.random()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn run(params: &SamplingParams, output: &[TokenId], ends: &[TokenId]) -> TokenId {
        let mut counts = HashMap::new();
        for token in output {
            *counts.entry(*token).or_default() += 1;
        }
        let history = History {
            prompt: &[1],
            output_counts: &counts,
            output_tokens: output.len() as u32,
            end_tokens: ends,
        };
        sample(&LOGITS, params, &history).expect("finite")
    }

    fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_equals_after_all_adjustments() {
        let check = |change: &dyn Fn(&mut SamplingParams), output: &[TokenId], expect: TokenId| {
            let mut params = greedy();
            change(&mut params);
            assert_eq!(run(&params, output, &[3]), expect, "{params:?}");
        };
        check(&|_| (), &[], 1);
        check(&|p| p.repetition_penalty = 1.1, &[], 3);
        check(&|p| p.repetition_penalty = 2.0, &[3], 2);
        check(&|p| p.repetition_penalty = f32::from_bits(1), &[3], 1);
        check(&|p| p.presence_penalty = 0.5, &[1], 3);
        check(&|p| p.frequency_penalty = 0.6, &[1, 1, 3, 3], 2);
        check(&|p| p.logit_bias = vec![(4, 100.0), (99, 1.0)], &[], 4);
        check(&|p| (p.min_tokens, p.logit_bias) = (1, vec![(3, 1.0)]), &[], 1);
        check(&|p| (p.min_tokens, p.logit_bias) = (1, vec![(3, 1.0)]), &[0], 3);
    }

    /// How often each token is drawn with seeds 0 to 9,999.
    fn frequencies(change: impl Fn(&mut SamplingParams)) -> [f64; 5] {
        let mut counts = [0.0; 5];
        for seed in 0..10_000 {
            let mut params = SamplingParams { seed, ..SamplingParams::default() };
            change(&mut params);
            counts[run(&params, &[], &[]) as usize] += 1e-4;
        }
        counts
    }

    fn softmax(kept: &[usize], temperature: f64) -> [f64; 5] {
        let mut weights = [0.0; 5];
        for token in kept {
            weights[*token] = (f64::from(LOGITS[*token]) / temperature).exp();
        }
        let total: f64 = weights.iter().sum();
        weights.map(|weight| weight / total)
    }

    #[test]
    fn the_smallest_penalty_leaves_a_choice_among_what_it_raised() {
        for temperature in [f32::from_bits(1), 1e-20, 1.0, 2.0] {
            let sampling = SamplingParams::default();
            let params = SamplingParams { temperature, repetition_penalty: 1e-38, ..sampling };
            let token = run(&params, &[3], &[]);
            assert!(token == 1 || token == 3, "{token} at {temperature}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_that_is_left() {
        let check = |change: &dyn Fn(&mut SamplingParams), kept: &[usize], temperature: f64| {
            let (found, expect) = (frequencies(change), softmax(kept, temperature));
            for token in 0..5 {
                // Five standard deviations of 10,000 draws.
                let error = (found[token] - expect[token]).abs();
                assert!(error < 0.025, "{found:?} is not {expect:?}");
                assert!(expect[token] > 0.0 || found[token] == 0.0, "{token} was cut");
            }
        };
        check(&|_| (), &[0, 1, 2, 3, 4], 1.0);
        check(&|p| p.temperature = 2.0, &[0, 1, 2, 3, 4], 2.0);
        check(&|p| p.top_k = 2, &[1, 3], 1.0);
        check(&|p| p.top_k = 1, &[1], 1.0);
        check(&|p| p.top_k = 9, &[0, 1, 2, 3, 4], 1.0);
        check(&|p| p.top_p = 0.5, &[1, 3], 1.0);
        check(&|p| p.top_p = 0.01, &[1], 1.0);
        check(&|p| p.min_p = 0.3, &[1, 2, 3], 1.0);
        check(&|p| p.min_p = 1.0, &[1, 3], 1.0);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_only() {
        assert_eq!(draw(7, 3).to_bits(), draw(7, 3).to_bits());
        assert_ne!(draw(7, 3).to_bits(), draw(7, 4).to_bits());
        assert_ne!(draw(7, 3).to_bits(), draw(8, 3).to_bits());
    }

    #[test]
    fn the_smallest_temperature_takes_the_likeliest() {
        for temperature in [1e-40, 1e-30, 1e-6] {
            let logits = [3.0, 900.0, 901.0, -5.0, 899.0];
            let params = SamplingParams { temperature, ..SamplingParams::default() };
            let history = History {
                prompt: &[],
                output_counts: &HashMap::new(),
                output_tokens: 0,
                end_tokens: &[],
            };
            assert_eq!(sample(&logits, &params, &history).expect("finite"), 2);
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let counts = HashMap::new();
        let history =
            History { prompt: &[], output_counts: &counts, output_tokens: 0, end_tokens: &[] };
        for bad in [f32::NAN, f32::INFINITY] {
            let logits = [0.0, bad];
            let found = sample(&logits, &greedy(), &history);
            assert!(matches!(found, Err(SampleError::Logits(BadLogit { token: 1 }))), "{found:?}");
        }
    }

    #[test]
    fn logprobs_are_those_of_the_raw_distribution() {
        let found = logprob(&LOGITS, 2, 3).unwrap();
        let expect = softmax(&[0, 1, 2, 3, 4], 1.0);
        assert!((f64::from(found.logprob) - expect[2].ln()).abs() < 1e-5);
        let order: Vec<TokenId> = found.top.iter().map(|(token, _)| *token).collect();
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(logprob(&LOGITS, 2, 0).unwrap().top, []);
        assert_eq!(logprob(&LOGITS, 2, 20).unwrap().top.len(), 5);
    }

    /// The cuts as they are defined: everything sorted, everything summed.
    fn defined(logits: &[f32], params: &SamplingParams) -> Vec<usize> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight =
            |token: usize| (f64::from(logits[token] - max) / f64::from(params.temperature)).exp();
        let mut kept: Vec<usize> = (0..logits.len()).collect();
        kept.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        kept.retain(|token| weight(*token) >= f64::from(params.min_p));
        if params.top_k > 0 {
            kept.truncate(params.top_k as usize);
        }
        let total: f64 = kept.iter().map(|token| weight(*token)).sum();
        let (mut sum, mut count) = (0.0, 0);
        while count < kept.len() && sum < f64::from(params.top_p) * total {
            sum += weight(kept[count]);
            count += 1;
        }
        kept.truncate(count);
        kept
    }

    #[test]
    fn cuts_of_large_rows_are_as_they_are_defined() {
        use rand::rngs::StdRng;
        let mut random = StdRng::seed_from_u64(1);
        let logits: Vec<f32> = (0..3000).map(|_| random.random_range(-12.0..6.0)).collect();
        let (counts, mut checked) = (HashMap::new(), 0);
        for temperature in [0.3, 1.0, 2.0] {
            for (top_k, top_p, min_p) in [
                (0, 0.1, 0.0),
                (0, 0.9, 0.0),
                (0, 0.999, 0.0),
                (5, 1.0, 0.0),
                (700, 0.8, 0.0),
                (0, 1.0, 0.05),
                (40, 0.9, 0.02),
                (2999, 1.0, 0.0),
            ] {
                let params =
                    SamplingParams { temperature, top_k, top_p, min_p, ..Default::default() };
                let kept = defined(&logits, &params);
                let mut seen = std::collections::HashSet::new();
                for seed in 0..300 {
                    let params = SamplingParams { seed, ..params.clone() };
                    let history = History {
                        prompt: &[],
                        output_counts: &counts,
                        output_tokens: 3,
                        end_tokens: &[],
                    };
                    let token = sample(&logits, &params, &history).unwrap();
                    assert!(kept.contains(&(token as usize)), "{params:?} drew {token}");
                    seen.insert(token);
                }
                // Few tokens are all drawn sooner or later.
                assert!(kept.len() > 10 || seen.len() * 2 >= kept.len(), "{params:?}");
                checked += seen.len();
            }
        }
        assert!(checked > 1000, "{checked}");
    }
}
