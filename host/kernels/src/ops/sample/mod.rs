//! Logits to token: rows on the host, and the launches on a device, which choose the same tokens.
//!
//! Draws take their numbers from the caller, weights are integers, and so a draw is the same on every
//! machine. What penalties mean and which tokens they concern is the caller's to know.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod host;
#[cfg(test)]
mod host_tests;
mod near;
mod nucleus;
mod numbers;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;
mod vectors;

pub use host::{BadLogit, LogitRows};
pub use numbers::SampleRow;

const OP: &str = "sample";

/// How a row's token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleParams {
    /// Divides the logits; zero takes the likeliest token.
    pub temperature: f32,
    /// Tokens kept, the likeliest; zero for all. Of equals, the lower ids.
    pub top_k: u32,
    /// Share of the weight that is kept, in the likeliest tokens that have it together; one for all.
    pub top_p: f32,
    /// Weight relative to the likeliest below which tokens are dropped; zero for none.
    pub min_p: f32,
    /// A number in [0, 1), uniform.
    pub draw: f64,
}

/// A change to one logit of one row: divided by `repetition` if positive and multiplied by it if not, then
/// lowered by `subtract`, then raised by `add`. At most one per row and token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitAdjustment {
    /// Row.
    pub row: usize,
    /// Token.
    pub token: u32,
    /// Repetition penalty; one for none.
    pub repetition: f32,
    /// Presence and frequency penalties.
    pub subtract: f32,
    /// Bias; negative infinity forbids the token.
    pub add: f32,
}

/// What stands for a token where the logits are not a distribution: one is NaN or infinite, or all are
/// forbidden.
pub const NOT_FINITE: u32 = u32::MAX;
