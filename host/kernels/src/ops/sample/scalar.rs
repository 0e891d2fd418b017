//! The specification: of what vectors find in a row, and of the choice, which sorts where the kernels
//! and [`super::LogitRows`] select.

use super::numbers::whole;
use super::vectors::BLOCK;
use crate::simd::math::exp;

/// The largest of each block of logits; NaN where one is NaN or positive infinity.
pub(super) fn maxima(logits: &[f32], found: &mut [f32]) {
    for (block, found) in logits.chunks(BLOCK).zip(found) {
        let bad = block.iter().any(|l| l.is_nan() || *l == f32::INFINITY);
        let largest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        *found = if bad { f32::NAN } else { largest };
    }
}

/// A logit's weight relative to the largest's.
#[inline(always)]
pub(super) fn weigh(logit: f32, (largest, temperature): (f32, f32)) -> f32 {
    exp((logit - largest) / temperature)
}

/// Weights of each block of logits, whose largest are `maxima`, together.
pub(super) fn block_weights(logits: &[f32], maxima: &[f32], scale: (f32, f32), found: &mut [u64]) {
    let _ = maxima;
    for (block, found) in logits.chunks(BLOCK).zip(found) {
        *found = block.iter().map(|logit| whole(weigh(*logit, scale))).sum();
    }
}

/// Turns logits into weights relative to the largest's.
pub(super) fn weights(logits: &mut [f32], scale: (f32, f32)) {
    for logit in logits {
        *logit = weigh(*logit, scale);
    }
}

/// Weights of those of each block of logits that are `floor` at least, together. `maxima` are the
/// largest of the blocks.
pub(super) fn block_sums(
    (logits, weights): (&[f32], &[f32]),
    maxima: &[f32],
    floor: f32,
    found: &mut [u64],
) {
    let _ = maxima;
    let blocks = logits.chunks(BLOCK).zip(weights.chunks(BLOCK));
    for ((logits, weights), found) in blocks.zip(found) {
        let those = logits.iter().zip(weights).filter(|(logit, _)| **logit >= floor);
        *found = those.map(|(_, weight)| whole(*weight)).sum();
    }
}

/// The token of a row of adjusted logits.
#[cfg(test)]
pub(super) fn sample(logits: &[f32], row: &super::SampleRow) -> u32 {
    if logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY) {
        return super::NOT_FINITE;
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return super::NOT_FINITE;
    }
    if row.temperature == 0.0 {
        return logits.iter().position(|l| *l == largest).expect("one is the largest") as u32;
    }
    let weigh = |l: &f32| whole(weigh(*l, (largest, row.temperature)));
    let weights: Vec<u64> = logits.iter().map(weigh).collect();
    // Likeliest first, of equals the lower id, since the sort is stable.
    let mut kept: Vec<usize> = (0..logits.len()).filter(|i| weights[*i] >= row.floor).collect();
    kept.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).expect("no NaN"));
    if row.top_k > 0 {
        kept.truncate(row.top_k as usize);
    }
    let sum = |kept: &[usize]| kept.iter().map(|i| u128::from(weights[*i])).sum::<u128>();
    if row.top_p != u64::MAX {
        let need = ((sum(&kept) * u128::from(row.top_p)) >> 64).max(1);
        let mut reached = 0;
        let enough = kept.iter().position(|i| {
            reached += u128::from(weights[*i]);
            reached >= need
        });
        kept.truncate(enough.map_or(kept.len(), |last| last + 1));
    }
    kept.sort_unstable();
    let target = (sum(&kept) * u128::from(row.draw)) >> 64;
    let mut reached = 0;
    let chosen = kept.iter().find(|i| {
        reached += u128::from(weights[**i]);
        target < reached
    });
    *chosen.expect("the target is below the sum") as u32
}
