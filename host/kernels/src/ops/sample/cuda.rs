//! Sampling on a device.

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{DType, Tensor};

use super::device::{Memory, choose, items_of};
use super::{LogitAdjustment, OP, SampleParams};
use crate::KernelError;
use crate::cuda::{empty, upload, write_to};
use crate::launch::Ptr;
use crate::tensor::shape_error;

/// Adjusts `logits`, f32 `[rows, vocab]`, in place, and chooses a token per row: u32 `[rows]` on the device,
/// [`super::NOT_FINITE`] for rows that are no distribution.
///
/// # Errors
/// Another shape or type, other than one `params` per row, adjustments of what is not there, numbers
/// outside their ranges, or a failed launch.
pub fn sample(
    logits: &Tensor,
    params: &[SampleParams],
    adjustments: &[LogitAdjustment],
) -> Result<Tensor, KernelError> {
    let &[rows, vocab] = logits.dims() else {
        return Err(shape_error(OP, "logits", &[params.len(), 0], logits.dims()));
    };
    if rows != params.len() {
        return Err(shape_error(OP, "logits", &[params.len(), vocab], logits.dims()));
    }
    if logits.dtype() != DType::F32 {
        return Err(KernelError::Dtype { op: OP, operand: "logits", found: logits.dtype() });
    }
    let items = items_of(adjustments, (rows, vocab))?;
    let numbers = params.iter().map(SampleParams::checked).collect::<Result<Vec<_>, _>>()?;
    let on_device = (upload(OP, &items, logits.device())?, upload(OP, &numbers, logits.device())?);
    // SAFETY: the kernel writes a token for every row.
    let tokens = unsafe { empty(rows, DType::U32, logits.device())? };
    write_to(OP, &tokens, |queue, tokens| {
        write_to(OP, logits, |_, logits| {
            let (listed, _listed) = on_device.0.device_ptr(queue.stream());
            let (rows_at, _rows_at) = on_device.1.device_ptr(queue.stream());
            let memory = Memory { logits, items: Ptr(listed), rows: Ptr(rows_at), tokens };
            // SAFETY: `logits` and `tokens` have `rows` rows, items were checked against them.
            unsafe { choose(queue, memory, (rows, vocab), items.len()) }
        })
    })?;
    Ok(tokens)
}
