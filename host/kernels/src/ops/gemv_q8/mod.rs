//! Matrix product of a few rows with a weight of eight-bit blocks on a device: decoding, where each weight
//! byte is read for the sake of a row or two.
//!
//! The CPU's product is [`crate::PackedLinear`], which rounds activations as well; this one does not.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
#[cfg(test)]
mod tests;
