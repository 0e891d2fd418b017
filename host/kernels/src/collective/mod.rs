//! What the ranks of one model exchange in the middle of a forward: sums, and columns side by side.
//!
//! Parts: [`ThreadGroup`] (ranks that are threads of this process) and, with the feature `nccl`,
//! `NcclGroup` (a device each). Every rank calls the same exchanges in the same order. An exchange never
//! waits for a rank that has given up: see [`Communicator::abort`].

#[cfg(feature = "nccl")]
mod nccl;
#[cfg(not(feature = "nccl"))]
#[path = "nccl_disabled.rs"]
mod nccl;
mod threads;

use candle_core::Tensor;

use crate::KernelError;

pub use nccl::nccl_group;
pub use threads::ThreadGroup;

const OP: &str = "collective";

/// One rank's end of a group.
pub trait Communicator: std::fmt::Debug + Send + Sync {
    /// Which rank this is, below [`Communicator::size`].
    fn rank(&self) -> usize;

    /// Ranks of the group.
    fn size(&self) -> usize;

    /// The sum of all ranks' `x`, which have one shape. The ranks are added up in one order, so every
    /// rank gets the same bits.
    ///
    /// # Errors
    /// Operands of different shapes or other types than f32, or [`KernelError::Aborted`].
    fn all_reduce(&self, x: Tensor) -> Result<Tensor, KernelError>;

    /// All ranks' columns, rank by rank: each gives `[rows, widths[rank]]` and gets
    /// `[rows, sum of widths]`.
    ///
    /// # Errors
    /// As of [`Communicator::all_reduce`].
    fn all_gather(&self, x: Tensor, widths: &[usize]) -> Result<Tensor, KernelError>;

    /// [`Communicator::all_gather`] for rank 0 alone; the others get nothing.
    ///
    /// # Errors
    /// As of [`Communicator::all_reduce`].
    fn gather(&self, x: Tensor, widths: &[usize]) -> Result<Option<Tensor>, KernelError> {
        let gathered = self.all_gather(x, widths)?;
        Ok((self.rank() == 0).then_some(gathered))
    }

    /// Has the exchanges of all ranks fail, those that wait at once, until [`Communicator::reset`]: for a
    /// rank that will not come to the next one.
    fn abort(&self);

    /// Makes a group that was aborted good again. No rank may be inside an exchange.
    ///
    /// # Errors
    /// A group that can't be used any more.
    fn reset(&self) -> Result<(), KernelError>;
}

/// Checks that there is a width per rank and that `x` has that of its own.
fn check_widths(
    (rank, size): (usize, usize),
    x: &Tensor,
    widths: &[usize],
) -> Result<(), KernelError> {
    use crate::tensor::{rows, shape_error};
    if widths.len() != size {
        return Err(shape_error(OP, "widths", &[size], &[widths.len()]));
    }
    rows(OP, "x", x, widths[rank]).map(|_| ())
}
