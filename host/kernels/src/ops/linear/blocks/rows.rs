//! Activations in eight bits, rounded once per input and read by every product of it.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use crate::aligned::LANES;
use crate::dispatch::{Level, level};
use crate::ggml::RUN;
use crate::ops::ELEMENTS_PER_TASK;
use crate::pool::{Parts, for_tasks};

/// Largest magnitude of a rounded activation.
pub(super) const QUANT_MAX: f32 = 127.0;
/// Runs are counted in whole groups of the longest blocks, so that one rounding fits all formats.
const RUNS_MULTIPLE: usize = 8;

/// `[rows][runs]` runs; inputs beyond the last are zero.
pub(in crate::ops::linear) struct QuantizedRows {
    quants: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<[i32; 2]>,
    runs: usize,
}

/// Rows of quantized activations that one task works on.
pub(super) struct Rows<'a> {
    /// `[rows][runs][32]`
    pub(super) quants: &'a [i8],
    /// `[rows][runs]`
    pub(super) scales: &'a [f32],
    /// `[rows][runs]`: sums of the quants 0 to 15 and 16 to 31.
    pub(super) sums: &'a [[i32; 2]],
    pub(super) rows: usize,
    /// Runs of a row, those of the weight or more.
    pub(super) runs: usize,
}

impl QuantizedRows {
    /// Rounds `x`, `[rows, depth]`.
    pub(in crate::ops::linear) fn of(x: &[f32], depth: usize) -> Self {
        Self::at(level(), x, depth)
    }

    pub(super) fn at(level: Level, x: &[f32], depth: usize) -> Self {
        let rows = x.len() / depth;
        let runs = depth.div_ceil(RUN).next_multiple_of(RUNS_MULTIPLE);
        let mut quants = vec![0_i8; rows * runs * RUN];
        let mut scales = vec![0.0_f32; rows * runs];
        let mut sums = vec![[0_i32; 2]; rows * runs];
        let task_rows = ELEMENTS_PER_TASK.div_ceil(depth);
        {
            let (quants, scales) = (Parts::of(&mut quants), Parts::of(&mut scales));
            let sums = Parts::of(&mut sums);
            for_tasks(rows.div_ceil(task_rows), |task| {
                for row in task * task_rows..((task + 1) * task_rows).min(rows) {
                    let of_row = row * runs..(row + 1) * runs;
                    // SAFETY: each row is of one task.
                    let (quants, scales, sums) = unsafe {
                        (
                            quants.part(row * runs * RUN..(row + 1) * runs * RUN),
                            scales.part(of_row.clone()),
                            sums.part(of_row),
                        )
                    };
                    round_row(level, &x[row * depth..(row + 1) * depth], quants, (scales, sums));
                }
            });
        }
        Self { quants, scales, sums, runs }
    }

    /// `rows` rows from `first` on.
    pub(super) fn rows(&self, first: usize, rows: usize) -> Rows<'_> {
        let (first, last) = (first * self.runs, (first + rows) * self.runs);
        Rows {
            quants: &self.quants[first * RUN..last * RUN],
            scales: &self.scales[first..last],
            sums: &self.sums[first..last],
            rows,
            runs: self.runs,
        }
    }
}

type Rounded<'a> = (&'a mut [f32], &'a mut [[i32; 2]]);

fn round_row(level: Level, x: &[f32], quants: &mut [i8], rounded: Rounded<'_>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX-512F, as `level` says.
        Level::Avx512 => round_runs(x, quants, rounded, |values, quants, sums| unsafe {
            avx512::round(values, quants, sums)
        }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has AVX2 and more, as `level` says.
        Level::Avx2 => unsafe { round_row_avx2(x, quants, rounded) },
        _ => round_runs(x, quants, rounded, round),
    }
}

/// The same code, compiled for instructions that round and pack many at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn round_row_avx2(x: &[f32], quants: &mut [i8], rounded: Rounded<'_>) {
    round_runs(x, quants, rounded, round);
}

#[inline(always)]
fn round_runs(
    x: &[f32],
    quants: &mut [i8],
    (scales, sums): Rounded<'_>,
    round: impl Fn(&[f32; RUN], &mut [i8; RUN], &mut [i32; 2]) -> f32,
) {
    let targets = quants.chunks_exact_mut(RUN).zip(scales).zip(sums);
    for (index, ((quants, scale), sums)) in targets.enumerate() {
        let quants = quants.first_chunk_mut().expect("chunks of a run");
        let values = x.get(index * RUN..).unwrap_or_default();
        if let Some(values) = values.first_chunk() {
            *scale = round(values, quants, sums);
        } else if !values.is_empty() {
            let mut padded = [0.0; RUN];
            padded[..values.len()].copy_from_slice(values);
            *scale = round(&padded, quants, sums);
        }
    }
}

/// Returns the scale. What is not finite becomes a scale that is not a number, and so shows in every
/// output.
#[inline(always)]
fn round(values: &[f32; RUN], quants: &mut [i8; RUN], sums: &mut [i32; 2]) -> f32 {
    // The largest magnitude, of bits that order as the numbers do; infinity and NaN lie above all.
    let mut largest = [0_u32; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = (value.to_bits() & 0x7fff_ffff).max(*largest);
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if !largest.is_finite() {
        return f32::NAN;
    }
    let inverse = if largest == 0.0 { 0.0 } else { QUANT_MAX / largest };
    for (half, sum) in sums.iter_mut().enumerate() {
        let range = half * LANES..(half + 1) * LANES;
        let mut total = 0;
        for (quant, value) in quants[range.clone()].iter_mut().zip(&values[range]) {
            // The bound holds up to rounding; the smallest numbers have an infinite inverse.
            let rounded = (value * inverse).round_ties_even().clamp(-QUANT_MAX, QUANT_MAX) as i32;
            *quant = rounded as i8;
            total += rounded;
        }
        *sum = total;
    }
    largest / QUANT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, on_levels};

    #[test]
    fn every_level_rounds_to_the_same_numbers() {
        let mut random = Random::new(31);
        let mut x = random.floats(40 * RUN + 5);
        for (run, odd) in [
            (1, 0.0),
            (2, -0.0),
            (3, f32::NAN),
            (4, f32::INFINITY),
            (5, f32::NEG_INFINITY),
            (6, f32::MAX),
            (7, f32::MIN_POSITIVE),
            (8, 1e-45),
            (9, -1e-40),
        ] {
            x[run * RUN + run] = odd;
        }
        x[10 * RUN..11 * RUN].fill(0.0);
        x[11 * RUN..12 * RUN].fill(1e-45);
        x[12 * RUN..13 * RUN].fill(-3e38);
        // Halves between two numbers.
        (0..RUN).for_each(|i| x[13 * RUN + i] = 127.0 - i as f32 / 2.0);
        let depth = x.len();
        let out = on_levels(|level| {
            let rows = QuantizedRows::at(level, &x, depth);
            let scales = rows.scales.iter().map(|scale| scale.to_bits() as i32);
            let sums = rows.sums.iter().flatten().copied();
            let all = rows.quants.iter().map(|quant| i32::from(*quant)).chain(scales).chain(sums);
            all.map(|bits| f32::from_bits(bits.cast_unsigned())).collect::<Vec<_>>()
        });
        let quants = &out[13 * RUN..14 * RUN];
        let quants: Vec<i32> = quants.iter().map(|bits| bits.to_bits().cast_signed()).collect();
        assert_eq!(quants[..6], [127, 126, 126, 126, 125, 124], "halves go to the even number");
    }
}
