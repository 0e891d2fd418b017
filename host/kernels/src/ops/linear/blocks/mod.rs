//! Weights in GGML's blocks, multiplied in integers: activations are rounded to eight bits, 32 at a
//! time, and the products of a run of 32 (of 16 in Q6_K) are exact. Each output adds up its runs in
//! order, so it has the same bits for one row as for a thousand, on every CPU.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod format;
mod pack;
mod round;
mod rows;
mod scalar;

use crate::WeightFormat;
use crate::dispatch::Level;
#[cfg(target_arch = "x86_64")]
use crate::dispatch::has_vnni;
use crate::ggml::RUN;
use crate::ops::columns::{Columns, Tile};
use crate::prefetch::Ahead;
use format::{Format, Q4_0, Q4K, Q6K, Q8_0};
pub(super) use pack::PackedBlocks;
#[cfg(feature = "cuda")]
pub(crate) use pack::rounded_q8_0;
pub(super) use rows::QuantizedRows;
use rows::Rows;

/// Panels of a packed weight that one task works on.
struct Panels<'a> {
    /// `[panels][runs][F::QUANT_BYTES]`
    quants: &'a [u8],
    /// `[panels][groups][F::SCALE_BYTES]`
    scales: &'a [u8],
    /// One float per output of these panels, padded to sixteen; empty without a bias.
    bias: &'a [f32],
    panels: usize,
    /// Runs of each output.
    runs: usize,
}

impl<'a> Panels<'a> {
    /// Quants of one run of sixteen outputs.
    fn quants<F: Format>(&self, panel: usize, run: usize) -> &'a [u8] {
        &self.quants[(panel * self.runs + run) * F::QUANT_BYTES..][..F::QUANT_BYTES]
    }

    /// Scales of the group of runs that one run is in.
    fn scales<F: Format>(&self, panel: usize, run: usize) -> &'a [u8] {
        let group = panel * (self.runs / F::GROUP) + run / F::GROUP;
        &self.scales[group * F::SCALE_BYTES..][..F::SCALE_BYTES]
    }
}

impl PackedBlocks {
    /// The rows of the tile times its panels.
    pub(super) fn product(
        &self,
        level: Level,
        (x, bias): (&QuantizedRows, &[f32]),
        tile: Tile,
        (out, ahead): (&mut Columns<'_>, &mut Ahead<'_>),
    ) {
        let x = x.rows(tile.row, tile.rows);
        let weight = self.panels(tile.panel, tile.panels, bias);
        match self.format() {
            WeightFormat::Q8_0 => gemm::<Q8_0>(level, (&x, &weight), out, ahead),
            WeightFormat::Q4_0 => gemm::<Q4_0>(level, (&x, &weight), out, ahead),
            WeightFormat::Q4K => gemm::<Q4K>(level, (&x, &weight), out, ahead),
            WeightFormat::Q6K => gemm::<Q6K>(level, (&x, &weight), out, ahead),
            other => unreachable!("`pack` refused {other:?}"),
        }
    }
}

fn gemm<F: Format>(
    level: Level,
    (x, weight): (&Rows<'_>, &Panels<'_>),
    out: &mut Columns<'_>,
    ahead: &mut Ahead<'_>,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX-512F, as `level` says, and VNNI.
        Level::Avx512 if has_vnni() => unsafe { avx512::gemm::<F>(x, weight, out, ahead) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => {
            ahead.rest();
            // SAFETY: the CPU has AVX2, FMA and F16C, as `level` says.
            unsafe { avx2::gemm::<F>(x, weight, out) }
        }
        _ => scalar::gemm::<F>(x, weight, out),
    }
}
