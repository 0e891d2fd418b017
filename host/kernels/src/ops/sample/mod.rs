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

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Tensor;

use crate::tensor::{Place, host_floats, place, shape_error};
use crate::{KernelError, for_tasks, on_device};

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

/// A token for each row of `logits`, f32 `[rows, vocab]`, chosen where they lie by one of `params` per row;
/// [`NOT_FINITE`] for rows that are no distribution. On a device the tokens alone are copied.
///
/// # Errors
/// Another shape or type, numbers outside their ranges, or a device this build can't use.
pub fn sample(logits: &Tensor, params: &[SampleParams]) -> Result<Vec<u32>, KernelError> {
    let vocab = match logits.dims() {
        &[rows, vocab] if rows == params.len() => vocab,
        found => return Err(shape_error(OP, "logits", &[params.len(), 0], found)),
    };
    let choices = params.iter().map(SampleParams::checked).collect::<Result<Vec<_>, _>>()?;
    if params.is_empty() {
        return Ok(Vec::new());
    }
    if vocab == 0 {
        return Err(KernelError::Size { op: OP, what: "vocab" });
    }
    if place(OP, logits.device())? == Place::Cuda {
        return on_device::sample(&logits.contiguous()?, params);
    }
    let floats = host_floats(OP, "logits", logits)?;
    let floats = floats.as_slice()?;
    let tokens: Vec<AtomicU32> = params.iter().map(|_| AtomicU32::new(NOT_FINITE)).collect();
    for_tasks(params.len(), |row| {
        let token = token_of(&floats[row * vocab..(row + 1) * vocab], &choices[row]);
        tokens[row].store(token, Ordering::Relaxed);
    });
    Ok(tokens.into_iter().map(AtomicU32::into_inner).collect())
}

thread_local! {
    static ROWS: RefCell<LogitRows> = RefCell::default();
}

/// The token of a row on the host, as kernels tell it.
fn token_of(logits: &[f32], choice: &SampleRow) -> u32 {
    let found = ROWS.with_borrow_mut(|rows| {
        let token = rows.sample(logits, choice).ok()?;
        // A forbidden token is never drawn, but where all are.
        (logits[token] > f32::NEG_INFINITY).then_some(token)
    });
    found.and_then(|token| u32::try_from(token).ok()).unwrap_or(NOT_FINITE)
}
