//! The specification: an output begins as its bias and adds one block after the other, each an exact
//! integer times the product of the two scales, rounded once.

use half::f16;

use super::{BLOCK, BLOCK_BYTES, Columns, Panels, Rows};
use crate::aligned::LANES;

pub(super) fn gemm(x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    let blocks = weight.blocks;
    let panels = weight.bytes.len() / (blocks * BLOCK_BYTES);
    for row in 0..x.rows {
        for panel in 0..panels {
            let mut sums = [0.0_f32; LANES];
            if !weight.bias.is_empty() {
                sums.copy_from_slice(&weight.bias[panel * LANES..(panel + 1) * LANES]);
            }
            for block in 0..blocks {
                let (at, of_row) = (panel * blocks + block, row * blocks + block);
                let bytes = &weight.bytes[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
                let x_bytes = &x.bytes[of_row * BLOCK..(of_row + 1) * BLOCK];
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let mut product = -x.offsets[of_row];
                    for (quad, x_bytes) in x_bytes.chunks_exact(4).enumerate() {
                        let bytes = &bytes[(quad * LANES + lane) * 4..][..4];
                        for (byte, x_byte) in bytes.iter().zip(x_bytes) {
                            product += i32::from(*byte) * i32::from(*x_byte);
                        }
                    }
                    let scale = f16::from_bits(weight.scales[at * LANES + lane]).to_f32();
                    *sum = (product as f32).mul_add(scale * x.scales[of_row], *sum);
                }
            }
            let lanes = out.lanes(row, panel);
            lanes.copy_from_slice(&sums[..lanes.len()]);
        }
    }
}
