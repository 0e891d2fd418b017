//! Draws of top-p where many tokens are left: the least likely one is looked for by weighing all that are
//! likelier than some logit, block by block, and only those near it are listed and ordered.

use super::host::{LogitRows, REACHES, floor_of};
use super::numbers::{share_of, whole};
use super::vectors::{BLOCK, NEGLIGIBLE, weights};

/// Tokens around the last one that are listed rather than split again.
const LISTED_MAX: usize = 256;
/// Splits before which there is no looking whether few are left.
const SPLITS_MIN: usize = 4;
/// Splits after which all that is between is listed, however many: floats have no more between them.
const SPLITS_MAX: usize = 64;

/// The least likely token that is left.
#[derive(Clone, Copy, Debug)]
struct Last {
    logit: f32,
    token: usize,
}

impl Last {
    fn is_kept(&self, logit: f32, token: usize) -> bool {
        logit > self.logit || (logit == self.logit && token <= self.token)
    }
}

impl LogitRows {
    /// The token at which the running sum of weights passes `share` of those of the fewest likeliest
    /// tokens that weigh `need` together, which all do and which is not zero.
    pub(super) fn draw_of_many(
        &mut self,
        logits: &[f32],
        scale: (f32, f32),
        (need, share): (u64, u64),
    ) -> usize {
        let mut all = std::mem::take(&mut self.all);
        all.clear();
        all.extend_from_slice(logits);
        weights(self.level, &mut all, scale);
        let last = self.last_needed((logits, &all), scale, need);
        let kept = self.weigh_kept(logits, &all, last);
        let token = self.passing_of_kept((logits, &all), last, share_of(kept, share));
        self.all = all;
        token
    }

    /// The token at which the running sum of weights of those kept passes `target`.
    fn passing_of_kept(
        &self,
        (logits, weights): (&[f32], &[f32]),
        last: Last,
        target: u64,
    ) -> usize {
        let (mut left, mut block) = (target, 0);
        while left >= self.sums[block] {
            left -= self.sums[block];
            block += 1;
        }
        for token in block * BLOCK..logits.len() {
            if last.is_kept(logits[token], token) {
                let weight = whole(weights[token]);
                if left < weight {
                    return token;
                }
                left -= weight;
            }
        }
        unreachable!("the target is below the sum of all weights")
    }

    /// Weighs of every block those that are kept if `last` is the least likely; the sum of all.
    fn weigh_kept(&mut self, logits: &[f32], weights: &[f32], last: Last) -> u64 {
        let mut total = self.weigh_from(logits, weights, last.logit);
        let after = logits.iter().zip(weights).enumerate().skip(last.token + 1);
        for (token, (_, weight)) in after.filter(|(_, (logit, _))| **logit == last.logit) {
            self.sums[token / BLOCK] -= whole(*weight);
            total -= whole(*weight);
        }
        total
    }

    /// The likeliest token that weighs `need` together with all that are likelier.
    fn last_needed(
        &mut self,
        (logits, weights): (&[f32], &[f32]),
        scale: (f32, f32),
        need: u64,
    ) -> Last {
        // Those of `least` and more weigh enough, those of `most` and more do not.
        let (mut least, mut most, mut above) = (floor_of(scale, -NEGLIGIBLE), f32::INFINITY, 0);
        for (reach, distance) in REACHES.into_iter().enumerate().skip(self.reach) {
            let floor = floor_of(scale, distance);
            let weight = self.weigh_from(logits, weights, floor);
            if weight >= need {
                (least, self.reach) = (floor, reach);
                break;
            }
            (most, above) = (floor, weight);
        }
        for split in 0.. {
            let middle = least + (most.min(scale.0) - least) * 0.5;
            let splits = split < SPLITS_MAX && middle > least && middle < most;
            let listed_max = if splits { LISTED_MAX } else { usize::MAX };
            let looks = !splits || split >= SPLITS_MIN;
            if looks && self.gather_from(logits, scale, (least, most), listed_max) {
                break;
            }
            let weight = self.weigh_from(logits, weights, middle);
            match weight >= need {
                true => least = middle,
                false => (most, above) = (middle, weight),
            }
        }
        self.near.keep_share(need - above);
        let (logits, tokens) = (&self.near.logits, &self.near.tokens);
        let logit = logits.iter().copied().fold(f32::INFINITY, f32::min);
        let equals = tokens.iter().zip(logits).filter(|(_, of)| **of == logit);
        let token = equals.map(|(token, _)| *token as usize).max();
        Last { logit, token: token.expect("what is between weighs something") }
    }
}
