//! What ops on elements share: two tensors of one shape in, one out, in chunks across threads.

use candle_core::Tensor;

use super::ELEMENTS_PER_TASK;
use crate::pool::for_chunks;
use crate::tensor::{Place, exactly, from_host, host_floats, place};
use crate::{KernelError, cuda};

/// Result of `run` on the elements of `gate` and `up`.
pub(super) fn gated(
    op: &'static str,
    (gate, up): (&Tensor, &Tensor),
    run: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) -> Result<Tensor, KernelError> {
    exactly(op, "up", up, gate.dims())?;
    if place(op, gate.device())? == Place::Cuda {
        return cuda::refuse(op);
    }
    let (left, right) = (host_floats(op, "gate", gate)?, host_floats(op, "up", up)?);
    let mut out = vec![0.0; gate.elem_count()];
    in_chunks(left.as_slice()?, right.as_slice()?, &mut out, run);
    from_host(out, gate.shape())
}

/// Runs over slices of one length.
pub(super) fn in_chunks(
    gate: &[f32],
    up: &[f32],
    out: &mut [f32],
    run: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) {
    if gate.len() <= ELEMENTS_PER_TASK {
        return run(gate, up, out);
    }
    for_chunks(out, ELEMENTS_PER_TASK, |index, out| {
        let range = index * ELEMENTS_PER_TASK..index * ELEMENTS_PER_TASK + out.len();
        run(&gate[range.clone()], &up[range], out);
    });
}

/// Runs over parts of a slice.
pub(super) fn in_place(x: &mut [f32], run: impl Fn(&mut [f32]) + Sync) {
    if x.len() <= ELEMENTS_PER_TASK {
        return run(x);
    }
    for_chunks(x, ELEMENTS_PER_TASK, |_, x| run(x));
}
