//! Why an op refuses its arguments. Every op checks before it computes, so a refusal leaves no
//! output half written.

use candle_core::{DType, DeviceLocation};

/// An op refused its arguments or its device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// An operand of the wrong shape.
    #[error("{op}: {operand} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The op.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// Shape required.
        expected: Vec<usize>,
        /// Shape given.
        found: Vec<usize>,
    },
    /// An operand of the wrong type.
    #[error("{op}: {operand} has dtype {found:?}")]
    Dtype {
        /// The op.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
        /// Type given.
        found: DType,
    },
    /// An operand whose elements do not lie one after another.
    #[error("{op}: {operand} is not contiguous")]
    NotContiguous {
        /// The op.
        op: &'static str,
        /// Which operand.
        operand: &'static str,
    },
    /// A size or index outside its bound.
    #[error("{op}: {what} is {value}, the bound is {bound}")]
    Bound {
        /// The op.
        op: &'static str,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What it must not reach or exceed.
        bound: usize,
    },
    /// A size that is zero or too large to allocate.
    #[error("{op}: unusable size: {what}")]
    Size {
        /// The op.
        op: &'static str,
        /// Which size.
        what: &'static str,
    },
    /// A tensor on a CUDA device in a build without CUDA.
    #[error("{op}: not built with cuda")]
    NotBuiltWithCuda {
        /// The op.
        op: &'static str,
    },
    /// A CUDA device that is not there or can't be used.
    #[error("no cuda device {ordinal}: {reason}")]
    NoDevice {
        /// Its number.
        ordinal: usize,
        /// Why, in one line.
        reason: String,
    },
    /// Ranks on CUDA devices in a build without NCCL.
    #[error("{op}: not built with nccl")]
    NotBuiltWithNccl {
        /// The op.
        op: &'static str,
    },
    /// An exchange between ranks of which one gave up.
    #[error("{op}: another rank failed")]
    Aborted {
        /// The op.
        op: &'static str,
    },
    /// A tensor on a CUDA device for an entry whose weights are packed for a CPU.
    #[error("{op}: no path for cuda devices")]
    NoDevicePath {
        /// The op.
        op: &'static str,
    },
    /// A kernel that this build does not carry: sizes or types that it has no code for.
    #[error("no kernel {kernel}")]
    NoKernel {
        /// Its name.
        kernel: String,
    },
    /// A device no build supports, or two operands on different devices.
    #[error("{op}: unsupported device {device:?}")]
    Device {
        /// The op.
        op: &'static str,
        /// The device.
        device: DeviceLocation,
    },
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl KernelError {
    /// What the tensor library says of a device that it can't open, in one line: it may add a backtrace, and
    /// a driver that is missing can't name its own status.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn no_device(ordinal: usize, said: &str) -> Self {
        let line = said.lines().next().unwrap_or_default();
        let reason = match line.contains("CUDA_ERROR_NO_DEVICE") {
            true => "there is no driver, or it has no device".to_owned(),
            false => line.to_owned(),
        };
        Self::NoDevice { ordinal, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_missing_is_told_in_one_line() {
        let check = |said, expect| {
            assert_eq!(KernelError::no_device(1, said).to_string(), expect);
        };
        let missing = "DriverError(CUDA_ERROR_NO_DEVICE, \"<Failure when calling>\")\n   0: frame";
        check(missing, "no cuda device 1: there is no driver, or it has no device");
        check("CublasError(1)\n   0: frame", "no cuda device 1: CublasError(1)");
        check("", "no cuda device 1: ");
    }
}
