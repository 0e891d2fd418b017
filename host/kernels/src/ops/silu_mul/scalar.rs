//! The specification.

use crate::simd::math::silu;

pub(super) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = silu(*gate) * up;
    }
}
