//! The answer of a build without NCCL to who asks for ranks on devices.

use std::sync::Arc;

use candle_core::Device;

use super::{Communicator, OP};
use crate::KernelError;

/// Ranks on devices.
///
/// # Errors
/// Always: this build has no NCCL.
pub fn nccl_group(_: &[Device]) -> Result<Vec<Arc<dyn Communicator>>, KernelError> {
    Err(KernelError::NotBuiltWithNccl { op: OP })
}
