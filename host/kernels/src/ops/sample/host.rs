//! Rows of logits on the host: the token that the specification names, without sorting a vocabulary.
//!
//! Weights are integers, so every cut and every draw is exact, whatever order sums are taken in.

use super::SampleRow;
use super::near::Near;
use super::numbers::{WEIGHT_ONE, share_of, whole};
use super::vectors::{BLOCK, NEGLIGIBLE, block_sums, block_weights, maxima, weights};
use crate::aligned::LANES;
use crate::dispatch::{Level, level};

/// Distances from the largest, in units of the temperature, within which top-p looks for enough.
pub(super) const REACHES: [f32; 5] = [2.5, 5.0, 7.5, 10.0, 14.0];
/// Rows after which it looks nearer than it had to for the last one.
const LESS_EVERY: u32 = 8;

/// Candidates of top-p above which sums over the whole row are cheaper than a list.
const CANDIDATES_MAX: usize = 1024;

/// A row that is no distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the logit of token {token} is NaN or infinite")]
pub struct BadLogit {
    /// The first that is NaN or positive infinity.
    pub token: usize,
}

/// Reads rows of logits, one after another in the same memory.
#[derive(Debug)]
pub struct LogitRows {
    pub(super) level: Level,
    maxima: Vec<f32>,
    pub(super) sums: Vec<u64>,
    pub(super) near: Near,
    floats: Vec<f32>,
    /// Weights of all tokens.
    pub(super) all: Vec<f32>,
    /// The one of [`REACHES`] that was far enough the last time, and rows for which one was looked for.
    pub(super) reach: usize,
    rows: u32,
}

impl Default for LogitRows {
    fn default() -> Self {
        Self::with_level(level())
    }
}

impl LogitRows {
    pub(super) fn with_level(level: Level) -> Self {
        let (maxima, sums, near, floats, all, reach, rows) = Default::default();
        Self { level, maxima, sums, near, floats, all, reach, rows }
    }

    /// Token and value of the largest logit; of equals, the first.
    ///
    /// # Errors
    /// Logits that are NaN or positive infinity.
    pub fn peak(&mut self, logits: &[f32]) -> Result<(usize, f32), BadLogit> {
        self.maxima.resize(logits.len().div_ceil(BLOCK), 0.0);
        maxima(self.level, logits, &mut self.maxima);
        let (mut best, mut block) = (f32::NEG_INFINITY, 0);
        for (index, largest) in self.maxima.iter().enumerate() {
            if largest.is_nan() {
                let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
                let token = logits.iter().position(is_bad).unwrap_or_default();
                return Err(BadLogit { token });
            }
            if *largest > best {
                (best, block) = (*largest, index);
            }
        }
        let start = block * BLOCK;
        let within = logits.iter().skip(start).position(|logit| *logit == best);
        Ok((start + within.unwrap_or_default(), best))
    }

    /// A token of what `row` leaves of the distribution of `logits`; the first where all are forbidden.
    ///
    /// # Errors
    /// Logits that are NaN or positive infinity.
    pub fn sample(&mut self, logits: &[f32], row: &SampleRow) -> Result<usize, BadLogit> {
        let (token, largest) = self.peak(logits)?;
        if row.temperature == 0.0 || largest == f32::NEG_INFINITY {
            return Ok(token);
        }
        let scale = (largest, row.temperature);
        let count = row.top_k as usize;
        let total = if count > 0 && count < logits.len() {
            self.gather_likeliest(logits, scale, count);
            self.near.keep(|_, _, weight| weight >= row.floor);
            self.near.keep_likeliest(count);
            self.near.weigh()
        } else if row.floor > 0 {
            // A weight is off by a few units in the last place, so what is nearly far enough may do.
            let reach = (f64::from(WEIGHT_ONE) / row.floor as f64).ln() as f32 + 1e-3;
            self.gather(logits, scale, reach, usize::MAX);
            self.near.keep(|_, _, weight| weight >= row.floor);
            self.near.weigh()
        } else {
            let total = self.weigh_all(logits, scale);
            if row.top_p == u64::MAX {
                return Ok(self.passing(logits, scale, share_of(total, row.draw)));
            }
            let need = share_of(total, row.top_p).max(1);
            if !self.reach(logits, scale, need) {
                return Ok(self.draw_of_many(logits, scale, (need, row.draw)));
            }
            total
        };
        if row.top_p != u64::MAX {
            self.near.keep_share(share_of(total, row.top_p).max(1));
        }
        Ok(self.near.draw(row.draw))
    }

    /// Natural logarithm of the sum of `exp(logit)`, and of the largest logit's share of it.
    ///
    /// # Errors
    /// Logits that are NaN or positive infinity.
    pub fn log_sum_exp(&mut self, logits: &[f32]) -> Result<f64, BadLogit> {
        let (_, largest) = self.peak(logits)?;
        let total = self.weigh_all(logits, (largest, 1.0));
        Ok(f64::from(largest) + (total as f64 / f64::from(WEIGHT_ONE)).ln())
    }

    /// The `count` likeliest tokens, best first; of equals, the lower one.
    ///
    /// # Errors
    /// Logits that are NaN or positive infinity.
    pub fn likeliest(&mut self, logits: &[f32], count: usize) -> Result<Vec<usize>, BadLogit> {
        let (_, largest) = self.peak(logits)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        self.gather_likeliest(logits, (largest, 1.0), count);
        self.near.keep_likeliest(count);
        Ok(self.near.ranked())
    }

    /// Weighs every block; the sum of all.
    fn weigh_all(&mut self, logits: &[f32], scale: (f32, f32)) -> u64 {
        self.sums.resize(self.maxima.len(), 0);
        block_weights(self.level, logits, &self.maxima, scale, &mut self.sums);
        self.sums.iter().sum()
    }

    /// Weighs of every block the logits that are `floor` at least; the sum of all.
    pub(super) fn weigh_from(&mut self, logits: &[f32], weights: &[f32], floor: f32) -> u64 {
        block_sums(self.level, (logits, weights), &self.maxima, floor, &mut self.sums);
        self.sums.iter().sum()
    }

    /// The token at which the running sum of all weights passes `target`, which is below it.
    fn passing(&mut self, logits: &[f32], scale: (f32, f32), target: u64) -> usize {
        let mut left = target;
        for (block, sum) in self.sums.iter().enumerate() {
            if left >= *sum {
                left -= sum;
                continue;
            }
            let start = block * BLOCK;
            self.floats.clear();
            self.floats.extend(logits[start..].iter().take(BLOCK));
            weights(self.level, &mut self.floats, scale);
            for (offset, weight) in self.floats.iter().enumerate() {
                let weight = whole(*weight);
                if left < weight {
                    return start + offset;
                }
                left -= weight;
            }
        }
        unreachable!("the target is below the sum of all weights")
    }

    /// Candidates that together weigh `need` at least, and all that are likelier than any of them; whether
    /// those are no more than [`CANDIDATES_MAX`].
    fn reach(&mut self, logits: &[f32], scale: (f32, f32), need: u64) -> bool {
        // Rows of one model are alike, so what the last one needed is tried first, and now and then less:
        // more than enough is never wrong.
        self.rows = self.rows.wrapping_add(1);
        let shorter = usize::from(self.rows.is_multiple_of(LESS_EVERY));
        let first = self.reach.saturating_sub(shorter);
        for (reach, distance) in REACHES.into_iter().enumerate().skip(first) {
            if !self.gather(logits, scale, distance, CANDIDATES_MAX) {
                return false;
            }
            if self.near.weigh() >= need {
                self.reach = reach;
                return true;
            }
        }
        self.gather(logits, scale, -NEGLIGIBLE, CANDIDATES_MAX)
    }

    /// At least the `count` likeliest tokens, or all.
    fn gather_likeliest(&mut self, logits: &[f32], scale: (f32, f32), count: usize) {
        if count <= self.maxima.len() {
            // As many blocks have a logit that is not below the floor.
            self.floats.clear();
            self.floats.extend_from_slice(&self.maxima);
            let least = self.floats.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1;
            let floor = *least;
            self.gather_from(logits, scale, (floor, f32::INFINITY), usize::MAX);
            return;
        }
        for distance in [5.0, 10.0, 20.0] {
            self.gather(logits, scale, distance, usize::MAX);
            if self.near.tokens.len() >= count {
                return;
            }
        }
        self.gather_from(logits, scale, (f32::NEG_INFINITY, f32::INFINITY), usize::MAX);
    }

    /// Candidates whose distance from the largest, in units of the temperature, is `reach` at most, and
    /// perhaps some a little further away; as [`LogitRows::gather_from`].
    fn gather(&mut self, logits: &[f32], scale: (f32, f32), reach: f32, most: usize) -> bool {
        self.gather_from(logits, scale, (floor_of(scale, reach), f32::INFINITY), most)
    }

    /// Candidates in the order of tokens, of those whose logit is `floor` at least and less than `bound`;
    /// whether there are no more than `most`. If there are, those found are some of them.
    pub(super) fn gather_from(
        &mut self,
        logits: &[f32],
        scale: (f32, f32),
        (floor, bound): (f32, f32),
        most: usize,
    ) -> bool {
        let Near { logits: found, tokens, weights: weighed, .. } = &mut self.near;
        found.clear();
        tokens.clear();
        // Written in any case and counted where it counts: a branch would often be a wrong guess.
        let mut take = |part: &[f32], first: usize| {
            let mut near = found.len();
            found.resize(near + part.len(), 0.0);
            tokens.resize(near + part.len(), 0);
            for (offset, logit) in part.iter().enumerate() {
                (found[near], tokens[near]) = (*logit, (first + offset) as u32);
                near += usize::from(*logit >= floor && *logit < bound);
            }
            found.truncate(near);
            tokens.truncate(near);
            near
        };
        let mut near = 0;
        let blocks = logits.chunks(BLOCK).zip(&self.maxima).enumerate();
        for (block, (part, _)) in blocks.filter(|(_, (_, largest))| **largest >= floor) {
            if near > most {
                return false;
            }
            let first = block * BLOCK;
            let (groups, rest) = part.as_chunks::<LANES>();
            for (group, part) in groups.iter().enumerate() {
                // Most have none, which vectors find out sooner.
                let is_near = |logit: &f32| u32::from(*logit >= floor && *logit < bound);
                if part.iter().fold(0, |any, logit| any | is_near(logit)) != 0 {
                    take(part, first + group * LANES);
                }
            }
            near = take(rest, first + groups.len() * LANES);
        }
        self.floats.clone_from(found);
        weights(self.level, &mut self.floats, scale);
        weighed.clear();
        weighed.extend(self.floats.iter().map(|weight| whole(*weight)));
        near <= most
    }
}

/// The logit at a distance from the largest, in units of the temperature, or a little below it.
pub(super) fn floor_of(scale: (f32, f32), distance: f32) -> f32 {
    let rounding = 2.0 * f32::EPSILON * scale.0.abs();
    scale.0 - distance * scale.1 - rounding
}
