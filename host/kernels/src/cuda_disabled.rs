//! What every op answers for a tensor on a CUDA device in a build without CUDA.
//!
//! A build with CUDA replaces this module by one of the same names, and nothing above changes.

use candle_core::Device;

use crate::KernelError;

/// The answer for any op.
pub(crate) fn refuse<T>(op: &'static str) -> Result<T, KernelError> {
    Err(KernelError::NotBuiltWithCuda { op })
}

/// The first CUDA device.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn device() -> Result<Device, KernelError> {
    refuse("device")
}

/// The CUDA device of a number.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn device_at(_: usize) -> Result<Device, KernelError> {
    refuse("device")
}
