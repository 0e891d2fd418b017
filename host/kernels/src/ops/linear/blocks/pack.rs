//! The weight in memory: panels of sixteen outputs, in the order in which a product reads them.

use std::ops::Range;

use rayon::prelude::*;

use super::format::{Format, Q4_0, Q4K, Q6K, Q8_0, agrees};
use super::round::round;
use super::{Panels, RUN};
use crate::aligned::{Aligned, LANES};
use crate::ggml::{self, Run};
use crate::prefetch::Span;
use crate::{KernelError, WeightBytes, WeightFormat};

const OP: &str = super::super::OP;

/// A packed weight.
#[derive(Debug)]
pub(in crate::ops::linear) struct PackedBlocks {
    format: WeightFormat,
    quants: Aligned<u8>,
    scales: Aligned<u8>,
    /// Bytes of the quants and of the scales of a panel.
    panel_bytes: (usize, usize),
    runs: usize,
}

impl PackedBlocks {
    /// Packs a weight that is in blocks of `format` already, or rounds one of floats to them. Inputs
    /// and outputs beyond the last are zero.
    pub(in crate::ops::linear) fn pack(
        weight: &WeightBytes<'_>,
        format: WeightFormat,
    ) -> Result<Self, KernelError> {
        match format {
            WeightFormat::Q8_0 => Self::pack_as::<Q8_0>(weight),
            WeightFormat::Q4_0 => Self::pack_as::<Q4_0>(weight),
            WeightFormat::Q4K => Self::pack_as::<Q4K>(weight),
            WeightFormat::Q6K => Self::pack_as::<Q6K>(weight),
            _ => Err(KernelError::Size { op: OP, what: "a format without blocks" }),
        }
    }

    fn pack_as<F: Format>(weight: &WeightBytes<'_>) -> Result<Self, KernelError> {
        assert!(agrees::<F>());
        let groups = weight.columns().div_ceil(F::FORMAT.block_len());
        let runs = groups * F::GROUP;
        let panel_bytes = (runs * F::QUANT_BYTES, groups * F::SCALE_BYTES);
        let panels = weight.rows().div_ceil(LANES);
        let fits = |bytes: usize| {
            let len = panels.checked_mul(bytes).filter(|len| *len <= isize::MAX as usize);
            len.ok_or(KernelError::Size { op: OP, what: "weight" })
        };
        let mut quants = Aligned::zeros(fits(panel_bytes.0)?);
        let mut scales = Aligned::zeros(fits(panel_bytes.1)?);
        let by_panel = quants.as_mut_slice().par_chunks_mut(panel_bytes.0);
        let by_panel = by_panel.zip(scales.as_mut_slice().par_chunks_mut(panel_bytes.1));
        by_panel.enumerate().try_for_each(|(panel, (quants, scales))| {
            let first = panel * LANES;
            for row in first..(first + LANES).min(weight.rows()) {
                put_row::<F>(&runs_of::<F>(weight, row)?, row - first, quants, scales);
            }
            Ok::<(), KernelError>(())
        })?;
        Ok(Self { format: F::FORMAT, quants, scales, panel_bytes, runs })
    }

    pub(super) fn format(&self) -> WeightFormat {
        self.format
    }

    pub(in crate::ops::linear) fn bytes(&self) -> usize {
        self.quants.bytes() + self.scales.bytes()
    }

    pub(super) fn panels<'a>(&'a self, first: usize, panels: usize, bias: &'a [f32]) -> Panels<'a> {
        let (quants, scales) = self.panel_bytes;
        Panels {
            quants: &self.quants.as_slice()[first * quants..(first + panels) * quants],
            scales: &self.scales.as_slice()[first * scales..(first + panels) * scales],
            bias,
            panels,
            runs: self.runs,
        }
    }

    /// Where some panels lie.
    pub(in crate::ops::linear) fn spans(&self, panels: Range<usize>) -> [Span; 2] {
        let panels = self.panels(panels.start, panels.len(), &[]);
        [Span::of(panels.quants), Span::of(panels.scales)]
    }

    /// The weights of one output.
    pub(in crate::ops::linear) fn read_row(&self, index: usize, target: &mut [f32]) {
        match self.format {
            WeightFormat::Q8_0 => self.read_row_as::<Q8_0>(index, target),
            WeightFormat::Q4_0 => self.read_row_as::<Q4_0>(index, target),
            WeightFormat::Q4K => self.read_row_as::<Q4K>(index, target),
            WeightFormat::Q6K => self.read_row_as::<Q6K>(index, target),
            other => unreachable!("`pack` refused {other:?}"),
        }
    }

    fn read_row_as<F: Format>(&self, index: usize, target: &mut [f32]) {
        let (panel, lane) = (self.panels(index / LANES, 1, &[]), index % LANES);
        for (run, target) in target.chunks_mut(RUN).enumerate() {
            let (quants, scales) = (panel.quants::<F>(0, run), panel.scales::<F>(0, run));
            let min = F::min(scales, lane, run % F::GROUP);
            for (input, value) in target.iter_mut().enumerate() {
                let half = input * F::HALVES / RUN;
                let quant = i32::from(F::quant(quants, input, lane)) - F::OFFSET;
                *value = F::scale(scales, lane, run % F::GROUP, half) * quant as f32 - min;
            }
        }
    }
}

/// The runs of a row, rounded if the weight is not in blocks of `F` already.
fn runs_of<F: Format>(weight: &WeightBytes<'_>, row: usize) -> Result<Vec<Run>, KernelError> {
    let padded = weight.columns().next_multiple_of(F::FORMAT.block_len());
    if weight.format() == F::FORMAT {
        let run = |index| ggml::run(F::FORMAT, weight.row(row), index);
        return Ok((0..padded / RUN).map(run).collect());
    }
    let mut values = vec![0.0; padded];
    weight.read_row(row, &mut values[..weight.columns()]);
    round(F::FORMAT, values)
}

fn put_row<F: Format>(runs: &[Run], lane: usize, quants: &mut [u8], scales: &mut [u8]) {
    let of_runs = quants.chunks_exact_mut(F::QUANT_BYTES).zip(runs).enumerate();
    for (index, (quants, run)) in of_runs {
        F::put_quants(quants, lane, run);
        let scales = &mut scales[index / F::GROUP * F::SCALE_BYTES..][..F::SCALE_BYTES];
        F::put_scales(scales, lane, index % F::GROUP, run);
    }
}

/// A weight of floats rounded to blocks of eight bits, as they lie in a file.
///
/// # Errors
/// Rows that are not whole blocks, or numbers that can't be rounded.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn rounded_q8_0(weight: &WeightBytes<'_>) -> Result<Vec<u8>, KernelError> {
    if !weight.columns().is_multiple_of(RUN) {
        return Err(KernelError::Size { op: OP, what: "rows that are not whole blocks" });
    }
    let rows = (0..weight.rows()).into_par_iter().map(|row| {
        let mut bytes = Vec::with_capacity(weight.columns() / RUN * Q8_0::FORMAT.block_bytes());
        for run in runs_of::<Q8_0>(weight, row)? {
            bytes.extend(run.scale.to_le_bytes());
            let offset = ggml::offset(Q8_0::FORMAT);
            bytes.extend(run.quants.map(|quant| (i32::from(quant) - offset) as i8 as u8));
        }
        Ok(bytes)
    });
    Ok(rows.collect::<Result<Vec<_>, KernelError>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, weight_of};

    #[test]
    fn blocks_of_a_file_are_those_in_memory() {
        let (rows, columns) = (3, 96);
        let floats = weight_of(&Random::new(81).floats(rows * columns), WeightFormat::F32);
        let weight = WeightBytes::new(&floats, WeightFormat::F32, rows, columns).unwrap();
        let bytes = rounded_q8_0(&weight).unwrap();
        let file = WeightBytes::new(&bytes, WeightFormat::Q8_0, rows, columns).unwrap();
        let packed = PackedBlocks::pack(&weight, WeightFormat::Q8_0).unwrap();
        for row in 0..rows {
            let (mut found, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
            file.read_row(row, &mut found);
            packed.read_row(row, &mut expected);
            assert_same_bits(&found, &expected);
        }
        let odd = WeightBytes::new(&floats, WeightFormat::F32, columns, rows).unwrap();
        assert!(rounded_q8_0(&odd).is_err());
    }
}
