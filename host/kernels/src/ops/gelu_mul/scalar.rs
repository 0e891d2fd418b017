//! The specification.

use crate::simd::math::gelu;

pub(super) fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = gelu(*gate) * up;
    }
}
