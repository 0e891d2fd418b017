//! The numbers of a draw as integers: sums of them have no order, so a draw is the same everywhere.

use super::SampleParams;
use crate::KernelError;

/// Weights are this many times the likeliest's share of one.
pub(super) const WEIGHT_ONE: f32 = (1_u64 << 40) as f32;

/// [`SampleParams`] checked and turned into integers; `SampleRow` of `sample.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SampleRow {
    pub(super) draw: u64,
    pub(super) top_p: u64,
    pub(super) floor: u64,
    pub(super) temperature: f32,
    pub(super) top_k: u32,
}

/// `share` of 2^64, all ones for one.
fn fraction(share: f64) -> u64 {
    // The product is exact, and the conversion saturates.
    (share * 2.0_f64.powi(64)) as u64
}

impl SampleParams {
    /// The numbers as draws take them.
    ///
    /// # Errors
    /// A temperature that is negative or no number, shares outside [0, 1], or a draw outside [0, 1).
    pub fn checked(&self) -> Result<SampleRow, KernelError> {
        let refuse = |what| Err(KernelError::Size { op: super::OP, what });
        if ![self.top_p, self.min_p].iter().all(|share| (0.0..=1.0).contains(share)) {
            return refuse("top_p or min_p outside 0 and 1");
        }
        if !(0.0..1.0).contains(&self.draw) {
            return refuse("draw outside 0 and 1");
        }
        if self.temperature.is_nan() || self.temperature < 0.0 {
            return refuse("temperature");
        }
        Ok(SampleRow {
            draw: fraction(self.draw),
            top_p: fraction(f64::from(self.top_p)),
            floor: (f64::from(self.min_p) * f64::from(WEIGHT_ONE)).ceil() as u64,
            temperature: self.temperature,
            top_k: self.top_k,
        })
    }
}

/// The least weight that the likeliest tokens must have together, of `total`.
pub(super) fn share_of(total: u64, share: u64) -> u64 {
    (((u128::from(total)) * u128::from(share)) >> 64) as u64
}

/// A weight relative to the likeliest's as an integer.
pub(super) fn whole(weight: f32) -> u64 {
    (weight * WEIGHT_ONE) as u64
}
