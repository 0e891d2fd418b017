//! The specification: sorts, where the kernel selects.

use super::NOT_FINITE;
use super::device::SampleRow;
use crate::simd::math::exp;

/// The token of a row of adjusted logits.
pub(super) fn sample(logits: &[f32], row: &SampleRow) -> u32 {
    if logits.iter().any(|l| l.is_nan() || *l == f32::INFINITY) {
        return NOT_FINITE;
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return NOT_FINITE;
    }
    if row.temperature == 0.0 {
        return logits.iter().position(|l| *l == largest).expect("one is the largest") as u32;
    }
    let weigh = |l: &f32| (exp((l - largest) / row.temperature) * (1_u64 << 40) as f32) as u64;
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
