//! Logits to token: penalties, bias, cuts, and a draw that depends on nothing but the request.

use std::cmp::Ordering;
use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use request::{SamplingParams, TokenId, TokenLogprob};

/// What the next token may depend on besides the logits.
pub(crate) struct History<'a> {
    pub(crate) prompt: &'a [TokenId],
    /// How often each token stands in the answer.
    pub(crate) output_counts: &'a HashMap<TokenId, u32>,
    /// Tokens of the answer so far; also the number of the draw.
    pub(crate) output_tokens: u32,
    /// Tokens that would end the answer.
    pub(crate) end_tokens: &'a [TokenId],
}

/// The model gave something that is not a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not finite at token {token}")]
pub(crate) struct NotFinite {
    token: usize,
}

/// Chooses the next token. `logits` `[vocab]` are overwritten.
///
/// # Errors
/// Logits that are NaN or positive infinity.
pub(crate) fn sample(
    logits: &mut [f32],
    params: &SamplingParams,
    history: &History<'_>,
) -> Result<TokenId, NotFinite> {
    if let Some(token) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
        return Err(NotFinite { token });
    }
    adjust(logits, params, history);
    if params.is_greedy() {
        return Ok(index(argmax(logits)));
    }
    // Measured from the largest, which stays finite however small the temperature is.
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for logit in logits.iter_mut().filter(|logit| logit.is_finite()) {
        *logit = (*logit - max) / params.temperature;
    }
    let draw = draw(params.seed, history.output_tokens);
    Ok(pick(logits, params, draw))
}

/// Log probabilities under the model's own distribution: of `token`, and of the `top` likeliest.
pub(crate) fn logprob(logits: &[f32], token: TokenId, top: u32) -> TokenLogprob {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    let total = f64::from(max) + sum.ln();
    let of = |token: usize| (f64::from(logits[token]) - total) as f32;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let top = (top as usize).min(order.len());
    if top > 0 && top < order.len() {
        order.select_nth_unstable_by(top - 1, |a, b| by_logit(logits, *a, *b));
    }
    order.truncate(top);
    order.sort_by(|a, b| by_logit(logits, *a, *b));
    let top = order.into_iter().map(|token| (index(token), of(token))).collect();
    TokenLogprob { token, logprob: of(token as usize), top }
}

/// Penalties, bias and forbidden ends, in vLLM's order.
fn adjust(logits: &mut [f32], params: &SamplingParams, history: &History<'_>) {
    if params.repetition_penalty != 1.0 {
        let mut seen: Vec<TokenId> = history.prompt.to_vec();
        seen.extend(history.output_counts.keys());
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            let logit = &mut logits[token as usize];
            let penalty = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
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

/// Cuts by min-p, top-k and top-p, and picks by `draw` among what is left.
fn pick(logits: &[f32], params: &SamplingParams, draw: f64) -> TokenId {
    let max = logits[argmax(logits)];
    let weight = |token: usize| f64::from(logits[token] - max).exp();
    let floor = f64::from(params.min_p);
    let mut kept: Vec<usize> = (0..logits.len()).filter(|token| weight(*token) >= floor).collect();
    let top_k = params.top_k as usize;
    if top_k > 0 && top_k < kept.len() {
        kept.select_nth_unstable_by(top_k - 1, |a, b| by_logit(logits, *a, *b));
        kept.truncate(top_k);
    }
    if params.top_p < 1.0 {
        kept.sort_by(|a, b| by_logit(logits, *a, *b));
        let total: f64 = kept.iter().map(|token| weight(*token)).sum();
        let enough = f64::from(params.top_p) * total;
        let mut sum = 0.0;
        let reach = kept.iter().position(|token| {
            sum += weight(*token);
            sum >= enough
        });
        kept.truncate(reach.map_or(kept.len(), |last| last + 1));
    } else {
        // Selection leaves an order that depends on the algorithm; the draw must not.
        kept.sort_unstable();
    }
    let total: f64 = kept.iter().map(|token| weight(*token)).sum();
    let mut left = draw * total;
    for token in &kept {
        left -= weight(*token);
        if left < 0.0 {
            return index(*token);
        }
    }
    // Rounding can leave a remainder; the last token that has any weight takes it.
    let last = kept.iter().rfind(|token| weight(**token) > 0.0);
    index(last.copied().unwrap_or_else(|| argmax(logits)))
}

/// The likeliest token; of equals, the first.
fn argmax(logits: &[f32]) -> usize {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).fold(0, better)
}

/// Likelier first; of equals, the lower id.
fn by_logit(logits: &[f32], a: usize, b: usize) -> Ordering {
    logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
}

fn index(token: usize) -> TokenId {
    TokenId::try_from(token).expect("a vocabulary has fewer than 2^32 tokens")
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
        sample(&mut LOGITS.clone(), params, &history).expect("finite")
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
            let mut logits = [3.0, 900.0, 901.0, -5.0, 899.0];
            let params = SamplingParams { temperature, ..SamplingParams::default() };
            let history = History {
                prompt: &[],
                output_counts: &HashMap::new(),
                output_tokens: 0,
                end_tokens: &[],
            };
            assert_eq!(sample(&mut logits, &params, &history).expect("finite"), 2);
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let counts = HashMap::new();
        let history =
            History { prompt: &[], output_counts: &counts, output_tokens: 0, end_tokens: &[] };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut logits = [0.0, bad];
            assert_eq!(sample(&mut logits, &greedy(), &history), Err(NotFinite { token: 1 }));
        }
    }

    #[test]
    fn logprobs_are_those_of_the_raw_distribution() {
        let found = logprob(&LOGITS, 2, 3);
        let expect = softmax(&[0, 1, 2, 3, 4], 1.0);
        assert!((f64::from(found.logprob) - expect[2].ln()).abs() < 1e-5);
        let order: Vec<TokenId> = found.top.iter().map(|(token, _)| *token).collect();
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(logprob(&LOGITS, 2, 0).top, []);
        assert_eq!(logprob(&LOGITS, 2, 20).top.len(), 5);
    }
}
