//! One row of logits: its peak, weights of its tokens, its likeliest tokens. Plain loops over lanes
//! that the compiler turns into vectors; each result has one order of reduction, so it is the same
//! on every machine. It never chooses a token.

use std::cmp::Ordering;

use request::TokenId;

/// Floats that are looked at together.
const LANES: usize = 16;
/// Floats after which it is noted where the largest is, or what the weights sum up to.
const BLOCK: usize = 256;

/// The model gave something that is not a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not finite at token {token}")]
pub(crate) struct NotFinite {
    pub(crate) token: usize,
}

/// Index and value of the largest; of equals, the first.
///
/// # Errors
/// Logits that are NaN or positive infinity.
pub(crate) fn peak(logits: &[f32]) -> Result<(usize, f32), NotFinite> {
    let (mut best, mut block, mut bad) = (f32::NEG_INFINITY, 0, false);
    for (index, part) in logits.chunks(BLOCK).enumerate() {
        let (largest, found) = largest(part);
        bad |= found;
        if largest > best {
            (best, block) = (largest, index);
        }
    }
    if bad {
        let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        let token = logits.iter().position(is_bad).unwrap_or_default();
        return Err(NotFinite { token });
    }
    let start = block * BLOCK;
    let within = logits[start..].iter().position(|logit| *logit == best);
    Ok((start + within.unwrap_or_default(), best))
}

/// The largest, and whether there is a NaN or positive infinity.
fn largest(part: &[f32]) -> (f32, bool) {
    let (mut most, mut bad) = ([f32::NEG_INFINITY; LANES], [0_u32; LANES]);
    let lanes = part.chunks_exact(LANES);
    let rest = lanes.remainder();
    for lane in lanes {
        for at in 0..LANES {
            most[at] = if lane[at] > most[at] { lane[at] } else { most[at] };
            bad[at] |=
                u32::from(!matches!(lane[at].partial_cmp(&f32::INFINITY), Some(Ordering::Less)));
        }
    }
    for (at, logit) in rest.iter().enumerate() {
        most[at] = if *logit > most[at] { *logit } else { most[at] };
        bad[at] |= u32::from(logit.is_nan() || *logit == f32::INFINITY);
    }
    let more = |a: f32, b: &f32| if *b > a { *b } else { a };
    (most.iter().fold(f32::NEG_INFINITY, more), bad.iter().any(|bad| *bad != 0))
}

/// `exp` within 3 units in the last place for numbers from -87 to 0, 0 below. No other is asked.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_2e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + coefficient;
    }
    let p = p * (r * r) + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = p * f32::from_bits(power);
    if x > -87.0 { value } else { 0.0 }
}

/// Weights of tokens and their sums block by block.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) each: Vec<f32>,
    sums: Vec<f64>,
    pub(crate) total: f64,
}

impl Weights {
    /// Weighs all tokens by `exp((logit - max) * sharpness)`; `max` is the largest logit.
    pub(crate) fn fill(&mut self, logits: &[f32], max: f32, sharpness: f32) {
        self.each.clear();
        self.each.extend(logits.iter().map(|logit| exp((logit - max) * sharpness)));
        self.sums.clear();
        self.sums.extend(self.each.chunks(BLOCK).map(sum));
        self.total = self.sums.iter().sum();
    }

    /// The token at which the running sum of weights passes `reach`; the last with any weight if
    /// rounding keeps it from doing so.
    pub(crate) fn at(&self, reach: f64) -> usize {
        let mut left = reach;
        for (index, sum) in self.sums.iter().enumerate() {
            if left < *sum {
                let start = index * BLOCK;
                for (offset, weight) in self.each[start..].iter().take(BLOCK).enumerate() {
                    left -= f64::from(*weight);
                    if left < 0.0 {
                        return start + offset;
                    }
                }
                continue;
            }
            left -= sum;
        }
        self.each.iter().rposition(|weight| *weight > 0.0).unwrap_or_default()
    }
}

fn sum(weights: &[f32]) -> f64 {
    sum_of(weights, |weight| weight)
}

/// Sum over lanes, then of lanes: an order that vectors can follow.
#[inline(always)]
fn sum_of(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0_f64; LANES];
    let lanes = values.chunks_exact(LANES);
    let rest = lanes.remainder();
    for lane in lanes {
        for at in 0..LANES {
            sums[at] += f64::from(of(lane[at]));
        }
    }
    for (at, value) in rest.iter().enumerate() {
        sums[at] += f64::from(of(*value));
    }
    sums.iter().sum()
}

/// Natural logarithm of the sum of `exp(logit)`.
pub(crate) fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    f64::from(max) + sum_of(logits, |logit| exp(logit - max)).ln()
}

/// At least the `count` likeliest tokens, in no order, and all that `enough` wants: those within
/// growing distances of `max`, in units of `width`, until there are as many and it is satisfied.
pub(crate) fn near_peak(
    logits: &[f32],
    (max, width): (f32, f32),
    count: usize,
    enough: impl Fn(&[usize]) -> bool,
) -> Vec<usize> {
    let blocks: Vec<f32> = logits.chunks(BLOCK).map(|part| largest(part).0).collect();
    let mut near = Vec::new();
    for distance in [2.5, 5.0, 10.0, 20.0, f32::INFINITY] {
        let floor = max - distance * width;
        near.clear();
        // Most blocks have none.
        for (block, _) in blocks.iter().enumerate().filter(|(_, largest)| **largest >= floor) {
            let part = logits[block * BLOCK..].iter().take(BLOCK).enumerate();
            let found = part.filter(|(_, logit)| **logit >= floor);
            near.extend(found.map(|(at, _)| block * BLOCK + at));
        }
        if near.len() >= count.min(logits.len()) && enough(&near) {
            break;
        }
    }
    near
}

/// The `count` likeliest tokens, best first.
pub(crate) fn likeliest(logits: &[f32], max: f32, count: usize) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let mut near = near_peak(logits, (max, 1.0), count, |_| true);
    if count < near.len() {
        near.select_nth_unstable_by(count - 1, |a, b| by_logit(logits, *a, *b));
        near.truncate(count);
    }
    near.sort_unstable_by(|a, b| by_logit(logits, *a, *b));
    near
}

/// Likelier first; of equals, the lower id.
pub(crate) fn by_logit(logits: &[f32], a: usize, b: usize) -> Ordering {
    logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
}

pub(crate) fn token_id(token: usize) -> TokenId {
    TokenId::try_from(token).expect("a vocabulary has fewer than 2^32 tokens")
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Rows of awkward lengths, with ties and tokens that can't be.
    fn rows() -> Vec<Vec<f32>> {
        let mut random = StdRng::seed_from_u64(5);
        let lengths = [1, 2, 15, 16, 17, 255, 256, 257, 1000, 5000];
        let row = |length: usize| {
            let mut value = || match random.random_range(0..20) {
                0 => f32::NEG_INFINITY,
                1 => 7.5,
                _ => random.random_range(-30.0..7.5),
            };
            (0..length).map(|_| value()).collect()
        };
        lengths.into_iter().map(row).collect()
    }

    #[test]
    fn the_peak_is_the_first_of_the_largest() {
        for row in rows() {
            let mut best = 0;
            for (at, value) in row.iter().enumerate() {
                if *value > row[best] {
                    best = at;
                }
            }
            assert_eq!(peak(&row), Ok((best, row[best])));
            for bad in [f32::NAN, f32::INFINITY] {
                for token in [0, row.len() / 2, row.len() - 1] {
                    let mut row = row.clone();
                    row[token] = bad;
                    assert_eq!(peak(&row), Err(NotFinite { token }));
                }
            }
        }
        assert_eq!(peak(&[f32::NEG_INFINITY; 40]), Ok((0, f32::NEG_INFINITY)));
    }

    #[test]
    fn exp_is_exp() {
        for step in 0..=870_000 {
            let x = step as f32 * -1e-4;
            let (found, expect) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - expect).abs() <= 4e-7 * expect || x <= -86.9, "{x}: {found}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn weights_are_found_again_by_their_running_sum() {
        for row in rows() {
            let (_, max) = peak(&row).unwrap();
            if max == f32::NEG_INFINITY {
                continue;
            }
            let mut weights = Weights::default();
            weights.fill(&row, max, 1.0);
            let mut sum = 0.0;
            for token in (0..row.len()).filter(|token| weights.each[*token] > 1e-6) {
                let before: f64 =
                    weights.each[..token].iter().map(|weight| f64::from(*weight)).sum();
                sum = before + 0.5 * f64::from(weights.each[token]);
                assert_eq!(weights.at(sum), token);
            }
            assert!(sum <= weights.total);
            let last = row.iter().rposition(|logit| logit - max > -87.0).unwrap();
            assert_eq!(weights.at(weights.total * 1.001), last);
            let expect: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            assert!((log_sum_exp(&row, max) - expect.ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn the_likeliest_are_those_of_a_full_sort() {
        for row in rows() {
            let (_, max) = peak(&row).unwrap();
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| by_logit(&row, *a, *b));
            for count in [0, 1, 3, 20, row.len(), row.len() + 1] {
                assert_eq!(likeliest(&row, max, count), order[..count.min(row.len())]);
            }
        }
    }
}
