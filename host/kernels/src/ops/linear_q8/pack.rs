//! The weight in memory: blocks of sixteen outputs, in the order in which a product reads them.

use half::f16;
use rayon::prelude::*;

use super::{BLOCK, BLOCK_BYTES, OP};
use crate::KernelError;
use crate::aligned::{AlignedBytes, LANES};
use crate::tensor::WeightBytes;

/// Largest magnitude of a rounded weight.
const QUANT_MAX: f32 = 127.0;
/// Inputs of one output that lie side by side: what one multiply-add of bytes takes.
const QUAD: usize = 4;

/// A packed weight.
#[derive(Debug)]
pub(super) struct PackedBlocks {
    bytes: AlignedBytes,
    scales: Vec<u16>,
    blocks: usize,
}

impl PackedBlocks {
    /// Rounds and packs; inputs beyond the last and outputs beyond the last are zero.
    pub(super) fn pack(weight: &WeightBytes<'_>) -> Result<Self, KernelError> {
        let (outputs, inputs) = (weight.rows(), weight.columns());
        let (panels, blocks) = (outputs.div_ceil(LANES), inputs.div_ceil(BLOCK));
        let len = panels
            .checked_mul(blocks)
            .and_then(|len| len.checked_mul(BLOCK_BYTES))
            .filter(|len| *len <= isize::MAX as usize)
            .ok_or(KernelError::Size { op: OP, what: "weight" })?;
        // 128 is zero.
        let mut bytes = AlignedBytes::filled(len, 128);
        let mut scales = vec![0_u16; panels * blocks * LANES];
        let by_panel = bytes.as_mut_slice().par_chunks_mut(blocks * BLOCK_BYTES);
        let packed: Result<(), KernelError> = by_panel
            .zip(scales.par_chunks_mut(blocks * LANES))
            .enumerate()
            .try_for_each(|(panel, (bytes, scales))| {
                let mut row = vec![0.0; inputs];
                for lane in 0..LANES.min(outputs - panel * LANES) {
                    weight.read_row(panel * LANES + lane, &mut row);
                    for (block, values) in row.chunks(BLOCK).enumerate() {
                        let (scale, quants) = round(values)?;
                        scales[block * LANES + lane] = scale.to_bits();
                        let target = &mut bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES];
                        for (input, quant) in quants.into_iter().enumerate() {
                            let quad = input / QUAD * QUAD * LANES;
                            target[quad + lane * QUAD + input % QUAD] =
                                quant.cast_unsigned() ^ 0x80;
                        }
                    }
                }
                Ok(())
            });
        packed?;
        Ok(Self { bytes, scales, blocks })
    }

    /// `[panels][blocks][8][16][4]`
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// `[panels][blocks][16]`, f16.
    pub(super) fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// Blocks of each output.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.bytes() + self.scales.len() * size_of::<u16>()
    }
}

/// Scale and quants of up to 32 values. The quants are of the exact scale, as GGML has it, and the scale
/// is kept in f16.
fn round(values: &[f32]) -> Result<(f16, [i8; BLOCK]), KernelError> {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / QUANT_MAX;
    let kept = f16::from_f32(scale);
    let finite = values.iter().all(|value| value.is_finite()) && kept.is_finite();
    if !finite {
        return Err(KernelError::Size { op: OP, what: "weight that is not finite" });
    }
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    let mut quants = [0; BLOCK];
    for (quant, value) in quants.iter_mut().zip(values) {
        // Ties go away from zero, as in GGML; the bound holds up to rounding of the reciprocal.
        *quant = (value * inverse).round().clamp(-QUANT_MAX, QUANT_MAX) as i8;
    }
    Ok((kept, quants))
}
