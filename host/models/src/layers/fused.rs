//! Several projections whose weights are one weight, as Phi-3 has them.

use candle_core::Tensor;
use kernels::KernelError;

/// The columns of `x` in parts of these widths, which add up to its own.
pub(crate) fn split<const N: usize>(
    x: &Tensor,
    widths: [usize; N],
) -> Result<[Tensor; N], KernelError> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(N);
    for width in widths {
        parts.push(x.narrow(1, start, width)?.contiguous()?);
        start += width;
    }
    Ok(parts.try_into().expect("a part per width"))
}
