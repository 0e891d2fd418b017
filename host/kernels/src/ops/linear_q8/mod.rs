//! Matrix product with a weight of eight-bit blocks: `y = x Wᵀ + b`, as GGML's Q8_0 defines the weight.
//!
//! 32 inputs share one scale. The weight is packed once into panels of sixteen outputs; activations
//! are rounded to eight bits, 32 at a time, once per call. Products of a block are exact integers, and
//! each output adds up its blocks in order: the same bits for one row as for a thousand, on every CPU.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pack;
mod quantize;
mod scalar;

use candle_core::{Device, Tensor};

use super::columns::{Columns, for_tiles};
use crate::aligned::LANES;
use crate::dispatch::{Level, has_vnni, level};
use crate::tensor::{Place, WeightBytes, from_host, host_floats, place, rows, shape_error};
use crate::{KernelError, cuda};
use pack::PackedBlocks;
use quantize::QuantizedRows;

const OP: &str = "linear_q8";

/// Inputs that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Bytes of one block of sixteen outputs.
const BLOCK_BYTES: usize = BLOCK * LANES;

/// Panels of a packed weight that one task works on.
struct Panels<'a> {
    /// `[panels][blocks][8][16][4]`: of each block, four inputs of each output in turn, plus 128.
    bytes: &'a [u8],
    /// `[panels][blocks][16]`, f16.
    scales: &'a [u16],
    /// One float per output of these panels, padded to sixteen; empty without a bias.
    bias: &'a [f32],
    /// Blocks of each output.
    blocks: usize,
}

/// A weight of a linear layer in eight-bit blocks, packed, with an optional bias.
#[derive(Debug)]
pub struct PackedLinearQ8 {
    blocks: PackedBlocks,
    bias: Vec<f32>,
    in_features: usize,
    out_features: usize,
}

impl PackedLinearQ8 {
    /// Rounds a weight `[out_features, in_features]` to blocks of eight bits and packs it, with a bias
    /// `[out_features]`, for `device`. Each block's scale is its largest magnitude over 127, in f16.
    ///
    /// # Errors
    /// An empty weight, one that is not finite, a bias of another length, or a device this build
    /// can't use.
    pub fn pack(
        weight: WeightBytes<'_>,
        bias: Option<&[f32]>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        if place(OP, device)? == Place::Cuda {
            return cuda::refuse(OP);
        }
        let (out_features, in_features) = (weight.rows(), weight.columns());
        if out_features == 0 || in_features == 0 {
            return Err(KernelError::Size { op: OP, what: "empty weight" });
        }
        let bias = match bias {
            Some(bias) if bias.len() != out_features => {
                return Err(shape_error(OP, "bias", &[out_features], &[bias.len()]));
            }
            Some(bias) => {
                let mut bias = bias.to_vec();
                bias.resize(out_features.next_multiple_of(LANES), 0.0);
                bias
            }
            None => Vec::new(),
        };
        let blocks = PackedBlocks::pack(&weight)?;
        Ok(Self { blocks, bias, in_features, out_features })
    }

    /// Inputs of the layer.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Outputs of the layer.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks.held_bytes() + self.bias.len() * size_of::<f32>()
    }

    /// `x Wᵀ + b`: `[rows, in_features]` to `[rows, out_features]`, f32.
    ///
    /// # Errors
    /// An operand of another shape or type, or on a device this build can't use.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let rows = rows(OP, "x", x, self.in_features)?;
        if place(OP, x.device())? == Place::Cuda {
            return cuda::refuse(OP);
        }
        let x = host_floats(OP, "x", x)?;
        let mut out = vec![0.0; rows * self.out_features];
        self.forward_rows(level(), x.as_slice()?, &mut out);
        from_host(out, (rows, self.out_features))
    }

    fn forward_rows(&self, level: Level, x: &[f32], out: &mut [f32]) {
        let (depth, width) = (self.in_features, self.out_features);
        let rows = x.len() / depth;
        assert!(x.len() == rows * depth && out.len() == rows * width);
        let blocks = self.blocks.blocks();
        let x = QuantizedRows::of(x, depth);
        for_tiles(out, (rows, width), depth, |tile, columns| {
            let (first, last) = (tile.panel, tile.panel + tile.panels);
            let weight = Panels {
                bytes: &self.blocks.bytes()
                    [first * blocks * BLOCK_BYTES..last * blocks * BLOCK_BYTES],
                scales: &self.blocks.scales()[first * blocks * LANES..last * blocks * LANES],
                bias: self.bias.get(first * LANES..last * LANES).unwrap_or_default(),
                blocks,
            };
            run(level, &x.rows(tile.row, tile.rows), &weight, columns);
        });
    }
}

/// Rows of quantized activations that one task works on.
struct Rows<'a> {
    /// `[rows][blocks][32]`
    bytes: &'a [i8],
    /// `[rows][blocks]`
    scales: &'a [f32],
    /// `[rows][blocks]`: 128 times the sum of a block, which the weight's offset adds too much.
    offsets: &'a [i32],
    rows: usize,
}

fn run(level: Level, x: &Rows<'_>, weight: &Panels<'_>, out: &mut Columns<'_>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX-512F, as `level` says, and VNNI.
        Level::Avx512 if has_vnni() => unsafe { avx512::gemm(x, weight, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX2, FMA and F16C, as `level` says.
        Level::Avx512 | Level::Avx2 => unsafe { avx2::gemm(x, weight, out) },
        _ => scalar::gemm(x, weight, out),
    }
}

#[cfg(test)]
mod tests;
