//! The vector bodies.

use super::numbers::whole;
use super::scalar;
use super::vectors::{BLOCK, NEGLIGIBLE};
use crate::aligned::LANES;
use crate::simd::math::exp_vector;
use crate::simd::{Vector, max_lanes};

/// Two to the power of 20, half of a weight's digits.
const HALF: f32 = (1 << 20) as f32;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn maxima<V: Vector>(logits: &[f32], found: &mut [f32]) {
    for (block, found) in logits.chunks(BLOCK).zip(found) {
        let whole = block.len() - block.len() % LANES;
        let mut rest = [f32::NAN];
        scalar::maxima(&block[whole..], &mut rest);
        let rest = if whole < block.len() { rest[0] } else { f32::NEG_INFINITY };
        // SAFETY: the caller has the instructions; the block holds `whole` floats.
        *found = unsafe {
            let (mut most, mut bad) = (V::splat(f32::NEG_INFINITY), V::splat(0.0));
            for i in (0..whole).step_by(LANES) {
                let logits = V::load(block.as_ptr().add(i));
                most = logits.max(most);
                // Zero times what is not finite is NaN, but forbidden tokens are negative infinity.
                let above = V::splat(-f32::MAX).max(logits);
                bad = above.mul_add(V::splat(0.0), bad);
            }
            let bad = bad.to_array().iter().any(|lane| lane.is_nan()) || rest.is_nan();
            let most = max_lanes(most.to_array());
            if bad { f32::NAN } else { rest.max(most) }
        };
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn block_weights<V: Vector>(
    logits: &[f32],
    maxima: &[f32],
    scale: (f32, f32),
    found: &mut [u64],
) {
    for ((block, largest), found) in logits.chunks(BLOCK).zip(maxima).zip(found) {
        if (largest - scale.0) / scale.1 < NEGLIGIBLE {
            *found = 0;
            continue;
        }
        let vectors = block.len() - block.len() % LANES;
        let rest = block[vectors..].iter().map(|logit| whole(scalar::weigh(*logit, scale)));
        let rest: u64 = rest.sum();
        // SAFETY: the caller has the instructions; the block holds `vectors` floats.
        *found = unsafe {
            let mut sum = Sum { high: V::splat(0.0), low: V::splat(0.0) };
            for i in (0..vectors).step_by(LANES) {
                sum.add(weigh::<V>(V::load(block.as_ptr().add(i)), scale));
            }
            sum.total() + rest
        };
    }
}

/// Weights of a block added up. Two halves of each integer's digits: sixteen of either are exact in a
/// float.
struct Sum<V> {
    high: V,
    low: V,
}

impl<V: Vector> Sum<V> {
    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    unsafe fn add(&mut self, weights: V) {
        // SAFETY: the caller has the instructions.
        unsafe {
            let shifted = weights.mul(V::splat(HALF));
            let upper = shifted.trunc();
            self.high = self.high.add(upper);
            self.low = self.low.add(shifted.sub(upper).mul(V::splat(HALF)).trunc());
        }
    }

    /// # Safety
    /// As [`Vector`].
    #[inline(always)]
    unsafe fn total(self) -> u64 {
        let total = |lanes: [f32; LANES]| lanes.iter().map(|lane| *lane as u64).sum::<u64>();
        // SAFETY: the caller has the instructions.
        unsafe { total(self.high.to_array()) * (1 << 20) + total(self.low.to_array()) }
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn block_sums<V: Vector>(
    (logits, weights): (&[f32], &[f32]),
    maxima: &[f32],
    floor: f32,
    found: &mut [u64],
) {
    let blocks = logits.chunks(BLOCK).zip(weights.chunks(BLOCK)).zip(maxima);
    for (((logits, weights), largest), found) in blocks.zip(found) {
        if *largest < floor {
            *found = 0;
            continue;
        }
        let vectors = logits.len() - logits.len() % LANES;
        let rest = logits[vectors..].iter().zip(&weights[vectors..]);
        let rest = rest.filter(|(logit, _)| **logit >= floor).map(|(_, weight)| whole(*weight));
        let rest: u64 = rest.sum();
        // SAFETY: the caller has the instructions; both blocks hold `vectors` floats.
        *found = unsafe {
            let mut sum = Sum { high: V::splat(0.0), low: V::splat(0.0) };
            for i in (0..vectors.min(weights.len())).step_by(LANES) {
                let (of, weight) =
                    (V::load(logits.as_ptr().add(i)), V::load(weights.as_ptr().add(i)));
                sum.add(weight.where_at_least(of, V::splat(floor)));
            }
            sum.total() + rest
        };
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn weights<V: Vector>(logits: &mut [f32], scale: (f32, f32)) {
    let vectors = logits.len() - logits.len() % LANES;
    for i in (0..vectors).step_by(LANES) {
        // SAFETY: the caller has the instructions; the slice holds `vectors` floats.
        unsafe {
            let at = logits.as_mut_ptr().add(i);
            weigh::<V>(V::load(at), scale).store(at);
        }
    }
    scalar::weights(&mut logits[vectors..], scale);
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn weigh<V: Vector>(logits: V, (largest, temperature): (f32, f32)) -> V {
    // SAFETY: the caller has the instructions.
    unsafe { exp_vector(logits.sub(V::splat(largest)).div(V::splat(temperature))) }
}
