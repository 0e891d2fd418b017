//! Activations in eight bits, rounded once per call and read by every task.

use rayon::prelude::*;

use super::{BLOCK, Rows};
use crate::ops::PARALLEL_WORK_MIN;

/// Largest magnitude of a rounded activation.
const QUANT_MAX: f32 = 127.0;
/// What the weight's bytes are too large by.
const WEIGHT_OFFSET: i32 = 128;

/// `[rows][blocks]` blocks; inputs beyond the last are zero.
pub(super) struct QuantizedRows {
    bytes: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
}

impl QuantizedRows {
    /// Rounds `x`, `[rows, depth]`.
    pub(super) fn of(x: &[f32], depth: usize) -> Self {
        let (rows, blocks) = (x.len() / depth, depth.div_ceil(BLOCK));
        let mut bytes = vec![0_i8; rows * blocks * BLOCK];
        let mut scales = vec![0.0_f32; rows * blocks];
        let mut offsets = vec![0_i32; rows * blocks];
        let row = |x: &[f32], bytes: &mut [i8], scales: &mut [f32], offsets: &mut [i32]| {
            let targets = bytes.chunks_mut(BLOCK).zip(scales).zip(offsets);
            for (values, ((bytes, scale), offset)) in x.chunks(BLOCK).zip(targets) {
                (*scale, *offset) = round(values, bytes);
            }
        };
        if x.len() <= PARALLEL_WORK_MIN {
            for (index, x) in x.chunks(depth).enumerate() {
                let (first, last) = (index * blocks, (index + 1) * blocks);
                let bytes = &mut bytes[first * BLOCK..last * BLOCK];
                row(x, bytes, &mut scales[first..last], &mut offsets[first..last]);
            }
        } else {
            x.par_chunks(depth)
                .zip(bytes.par_chunks_mut(blocks * BLOCK))
                .zip(scales.par_chunks_mut(blocks).zip(offsets.par_chunks_mut(blocks)))
                .for_each(|((x, bytes), (scales, offsets))| row(x, bytes, scales, offsets));
        }
        Self { bytes, scales, offsets, blocks }
    }

    /// `rows` rows from `first` on.
    pub(super) fn rows(&self, first: usize, rows: usize) -> Rows<'_> {
        let (first, last) = (first * self.blocks, (first + rows) * self.blocks);
        Rows {
            bytes: &self.bytes[first * BLOCK..last * BLOCK],
            scales: &self.scales[first..last],
            offsets: &self.offsets[first..last],
            rows,
        }
    }
}

/// Scale and offset of up to 32 values. What is not finite becomes a scale that is not a number, and so
/// shows in every output.
fn round(values: &[f32], bytes: &mut [i8]) -> (f32, i32) {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if !values.iter().all(|value| value.is_finite()) {
        return (f32::NAN, 0);
    }
    let scale = largest / QUANT_MAX;
    let inverse = if largest == 0.0 { 0.0 } else { QUANT_MAX / largest };
    let mut sum = 0;
    for (byte, value) in bytes.iter_mut().zip(values) {
        // The bound holds up to rounding; the smallest numbers have an infinite inverse.
        let quant = (value * inverse).round_ties_even().clamp(-QUANT_MAX, QUANT_MAX) as i8;
        *byte = quant;
        sum += i32::from(quant);
    }
    (scale, sum * WEIGHT_OFFSET)
}
