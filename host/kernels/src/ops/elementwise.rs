//! What ops on elements share: two tensors of one shape in, one out, in chunks across threads.

use candle_core::Tensor;

use super::ELEMENTS_PER_TASK;
use crate::KernelError;
use crate::pool::for_chunks;
use crate::tensor::{Place, exactly, from_host, host_floats, place};

/// Result of `run` on the elements of `gate` and `up`, or of `device` where they are on one.
pub(super) fn gated(
    op: &'static str,
    (gate, up): (&Tensor, &Tensor),
    device: impl Fn(&Tensor, &Tensor) -> Result<Tensor, KernelError>,
    run: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) -> Result<Tensor, KernelError> {
    exactly(op, "up", up, gate.dims())?;
    if place(op, gate.device())? == Place::Cuda {
        return device(gate, up);
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

#[cfg(test)]
pub(super) mod testing {
    //! What the tests of gates share.

    use candle_core::Tensor;

    use crate::KernelError;
    use crate::dispatch::Level;
    use crate::ops::testing::{Random, on_levels};
    use crate::tensor::from_host;

    /// Checks that a gate has the same bits at every level, is `expected` of the gate times the other
    /// operand within a relative `bound`, for gates within `spread` of zero, and keeps NaN.
    pub(crate) fn check_gate(
        run: impl Fn(Level, &[f32], &[f32], &mut [f32]) + Sync,
        spread: f32,
        (expected, bound): (impl Fn(f64) -> f64, impl Fn(f64) -> f64),
    ) {
        let mut random = Random::new(3);
        for len in [0, 1, 15, 16, 17, 33, 20_000] {
            let gate: Vec<f32> = random.floats(len).iter().map(|v| v * spread).collect();
            let up = random.floats(len);
            let out = on_levels(|level| {
                let mut out = vec![0.0; len];
                let part = |gate: &[f32], up: &[f32], out: &mut [f32]| run(level, gate, up, out);
                super::in_chunks(&gate, &up, &mut out, part);
                out
            });
            for ((x, up), out) in gate.iter().zip(&up).zip(&out) {
                let x = f64::from(*x);
                let expected = expected(x) * f64::from(*up);
                let error = (f64::from(*out) - expected).abs();
                assert!(error <= bound(x) * expected.abs() + 1e-30, "{x}: {expected}");
            }
        }
        on_levels(|level| {
            let mut out = vec![0.0; 20];
            run(level, &[f32::NAN; 20], &[1.0; 20], &mut out);
            assert!(out.iter().all(|v| v.is_nan()));
            vec![]
        });
    }

    /// Checks that operands of different shapes are refused.
    pub(crate) fn check_shapes(op: impl Fn(&Tensor, &Tensor) -> Result<Tensor, KernelError>) {
        let gate = from_host(vec![0.0; 6], (2, 3)).unwrap();
        let up = from_host(vec![0.0; 6], (3, 2)).unwrap();
        assert!(matches!(op(&gate, &up), Err(KernelError::Shape { operand: "up", .. })));
    }
}
