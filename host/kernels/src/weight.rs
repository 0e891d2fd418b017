//! Weights as they lie in a file: rows of floats, or of GGML's blocks.
//!
//! Nothing here computes with them: an op packs what it keeps.

use std::ops::Range;

use half::{bf16, f16};

use crate::KernelError;
use crate::ggml;
use crate::tensor::shape_error;

const OP: &str = "weight";

/// How the numbers of a weight are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// Four bytes each.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Blocks of 32 in eight bits with one scale: 8.5 bits a weight.
    Q8_0,
    /// Blocks of 32 in four bits with one scale: 4.5 bits a weight.
    Q4_0,
    /// Blocks of 256 in four bits, a scale and a minimum of six bits for each 32: 4.5 bits a weight in
    /// a file, 4.625 in memory.
    Q4K,
    /// Blocks of 256 in six bits, a scale of eight bits for each 16: 6.5625 bits a weight.
    Q6K,
}

impl WeightFormat {
    /// Weights in a block; one where each stands alone.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block in a file.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Whether weights share scales.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}

/// A matrix as it lies in a file: row-major, little-endian, of any alignment.
#[derive(Clone, Copy, Debug)]
pub struct WeightBytes<'a> {
    bytes: &'a [u8],
    format: WeightFormat,
    rows: usize,
    columns: usize,
}

impl<'a> WeightBytes<'a> {
    /// A view of `bytes` as `[rows, columns]`.
    ///
    /// # Errors
    /// A length that is not that of the elements, or rows that are not whole blocks.
    pub fn new(
        bytes: &'a [u8],
        format: WeightFormat,
        rows: usize,
        columns: usize,
    ) -> Result<Self, KernelError> {
        if !columns.is_multiple_of(format.block_len()) {
            let (value, bound) = (columns, format.block_len());
            let what = "columns that are not whole blocks";
            return Err(KernelError::Bound { op: OP, what, value, bound });
        }
        let expected = rows
            .checked_mul(columns / format.block_len())
            .and_then(|blocks| blocks.checked_mul(format.block_bytes()))
            .ok_or(KernelError::Size { op: OP, what: "rows * columns" })?;
        if bytes.len() != expected {
            return Err(shape_error(OP, "bytes", &[expected], &[bytes.len()]));
        }
        Ok(Self { bytes, format, rows, columns })
    }

    /// How the numbers are kept.
    #[must_use]
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Rows of the matrix.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of a row.
    ///
    /// # Panics
    /// If `index` is not a row.
    pub(crate) fn row(&self, index: usize) -> &'a [u8] {
        assert!(index < self.rows, "a row of the matrix");
        let width = self.columns / self.format.block_len() * self.format.block_bytes();
        &self.bytes[index * width..(index + 1) * width]
    }

    /// Writes row `index` to `target`, which holds `columns` floats. Halves are widened exactly.
    ///
    /// # Panics
    /// If `index` is not a row or `target` has another length.
    pub fn read_row(&self, index: usize, target: &mut [f32]) {
        assert_eq!(target.len(), self.columns, "a row of the matrix");
        let row = self.row(index);
        match self.format {
            WeightFormat::F32 => fill(target, row, f32::from_le_bytes),
            WeightFormat::F16 => fill(target, row, |bytes| f16::from_le_bytes(bytes).to_f32()),
            WeightFormat::Bf16 => fill(target, row, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            quantized => ggml::dequantize(quantized, row, target),
        }
    }

    /// The bytes of some rows, range after range, and of each the columns of `columns`: a matrix of the
    /// same format.
    ///
    /// # Errors
    /// Ranges outside the matrix, or columns that do not begin and end where blocks do.
    pub fn cut(
        &self,
        rows: &[Range<usize>],
        columns: Range<usize>,
    ) -> Result<Vec<u8>, KernelError> {
        for (range, bound) in
            rows.iter().map(|rows| (rows, self.rows)).chain([(&columns, self.columns)])
        {
            if range.start > range.end || range.end > bound {
                let what = "end of a cut";
                return Err(KernelError::Bound { op: OP, what, value: range.end, bound });
            }
        }
        let (len, bytes) = (self.format.block_len(), self.format.block_bytes());
        for value in [columns.start, columns.end] {
            if !value.is_multiple_of(len) {
                let what = "column to cut at, where only whole blocks can be cut off";
                return Err(KernelError::Bound { op: OP, what, value, bound: len });
            }
        }
        let of_row = columns.start / len * bytes..columns.end / len * bytes;
        let mut cut = Vec::with_capacity(rows.iter().map(Range::len).sum::<usize>() * of_row.len());
        for row in rows.iter().cloned().flatten() {
            cut.extend_from_slice(&self.row(row)[of_row.clone()]);
        }
        Ok(cut)
    }

    /// All elements as floats.
    #[must_use]
    pub fn to_floats(&self) -> Vec<f32> {
        let mut floats = vec![0.0; self.rows * self.columns];
        for (index, row) in floats.chunks_exact_mut(self.columns.max(1)).enumerate() {
            self.read_row(index, row);
        }
        floats
    }
}

fn fill<const N: usize>(target: &mut [f32], bytes: &[u8], read: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (value, element) in target.iter_mut().zip(elements) {
        *value = read(*element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits};

    #[test]
    fn half_weights_are_widened_exactly() {
        let values = Random::new(6).floats(5 * 3);
        let narrow: Vec<f32> = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, WeightFormat::F16, 5, 3).unwrap();
        assert_same_bits(&weight.to_floats(), &narrow);
        let narrow: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, WeightFormat::Bf16, 5, 3).unwrap();
        assert_same_bits(&weight.to_floats(), &narrow);
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one range of rows is a list of ranges")]
    fn cuts_are_rows_and_whole_blocks() {
        let floats: Vec<u8> = (0..24).flat_map(|v| (v as f32).to_le_bytes()).collect();
        let weight = WeightBytes::new(&floats, WeightFormat::F32, 4, 6).unwrap();
        let cut = weight.cut(&[3..4, 0..2], 1..3).unwrap();
        let cut = WeightBytes::new(&cut, WeightFormat::F32, 3, 2).unwrap();
        assert_eq!(cut.to_floats(), [19.0, 20.0, 1.0, 2.0, 7.0, 8.0]);
        assert_eq!(weight.cut(&[0..4], 0..6).unwrap(), floats);
        assert!(weight.cut(&[], 0..6).unwrap().is_empty());
        assert!(weight.cut(&[0..5], 0..6).is_err() && weight.cut(&[0..4], 0..7).is_err());
        let bytes: Vec<u8> = (0..4 * 34).collect();
        let blocks = WeightBytes::new(&bytes, WeightFormat::Q8_0, 2, 64).unwrap();
        assert_eq!(blocks.cut(&[1..2], 32..64).unwrap(), bytes[3 * 34..]);
        for columns in [0..16, 16..64, 31..32] {
            let error = blocks.cut(&[0..2], columns).unwrap_err().to_string();
            assert!(error.contains("whole blocks"), "{error}");
        }
    }

    #[test]
    fn lengths_are_those_of_whole_blocks() {
        for (format, columns, bytes) in [
            (WeightFormat::F32, 3, 12),
            (WeightFormat::F16, 3, 6),
            (WeightFormat::Q8_0, 64, 68),
            (WeightFormat::Q4_0, 64, 36),
            (WeightFormat::Q4K, 256, 144),
            (WeightFormat::Q6K, 512, 420),
        ] {
            let data = vec![0; 2 * bytes + 1];
            let open = |len: usize| WeightBytes::new(&data[..len], format, 2, columns).is_ok();
            assert!(open(2 * bytes), "{format:?}");
            assert!(!open(2 * bytes - 1) && !open(2 * bytes + 1), "{format:?}");
        }
        assert!(WeightBytes::new(&[0; 34], WeightFormat::Q8_0, 1, 31).is_err());
        assert!(WeightBytes::new(&[], WeightFormat::F32, usize::MAX, 2).is_err());
    }
}
