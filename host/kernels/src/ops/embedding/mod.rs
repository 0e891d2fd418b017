//! Rows of a table by token id.
//!
//! A tied embedding is read out of the packed `lm_head`, so there is one copy of it.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::tensor::{Place, from_host, place};
use crate::{KernelError, PackedLinear, WeightBytes, WeightFormat};

const OP: &str = "embedding";

/// A table `[entries, width]`.
#[derive(Debug)]
pub struct Embedding {
    table: Table,
    entries: usize,
    width: usize,
}

#[derive(Debug)]
enum Table {
    /// As in the file: half as wide where the checkpoint is, blocks where it has blocks.
    Rows {
        bytes: Vec<u8>,
        format: WeightFormat,
    },
    Tied(Arc<PackedLinear>),
}

impl Embedding {
    /// A table of its own.
    ///
    /// # Errors
    /// A device this build can't use.
    pub fn new(weight: WeightBytes<'_>, device: &Device) -> Result<Self, KernelError> {
        if place(OP, device)? == Place::Cuda {
            return crate::cuda::refuse(OP);
        }
        let (bytes, format) = (weight.bytes().to_vec(), weight.format());
        let (entries, width) = (weight.rows(), weight.columns());
        Ok(Self { table: Table::Rows { bytes, format }, entries, width })
    }

    /// The rows of `linear`, an `lm_head` that shares its weight with the embedding.
    #[must_use]
    pub fn tied(linear: Arc<PackedLinear>) -> Self {
        let (entries, width) = (linear.out_features(), linear.in_features());
        Self { table: Table::Tied(linear), entries, width }
    }

    /// Bytes held; none of its own if tied.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.table {
            Table::Rows { bytes, .. } => bytes.len(),
            Table::Tied(_) => 0,
        }
    }

    /// Row of each id, f32 `[ids, width]`.
    ///
    /// # Errors
    /// An id that is not in the table.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor, KernelError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.entries) {
            let (value, bound) = (*id as usize, self.entries);
            return Err(KernelError::Bound { op: OP, what: "id", value, bound });
        }
        let mut out = vec![0.0; ids.len() * self.width];
        let rows = out.chunks_exact_mut(self.width.max(1)).zip(ids);
        match &self.table {
            Table::Rows { bytes, format } => {
                let table = WeightBytes::new(bytes, *format, self.entries, self.width)?;
                rows.for_each(|(row, id)| table.read_row(*id as usize, row));
            }
            Table::Tied(linear) => rows.for_each(|(row, id)| linear.read_row(*id as usize, row)),
        }
        from_host(out, (ids.len(), self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_tied_tables_give_the_same_rows() {
        let values: Vec<f32> = (0..37 * 5).map(|v| v as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, WeightFormat::F32, 37, 5).unwrap();
        let own = Embedding::new(weight, &Device::Cpu).unwrap();
        let linear = PackedLinear::pack(weight, None, None, &Device::Cpu).unwrap();
        let tied = Embedding::tied(Arc::new(linear));
        for ids in [vec![], vec![0], vec![36, 0, 17, 17]] {
            let expected: Vec<Vec<f32>> =
                ids.iter().map(|id| values[*id as usize * 5..][..5].to_vec()).collect();
            assert_eq!(own.gather(&ids).unwrap().to_vec2::<f32>().unwrap(), expected);
            assert_eq!(tied.gather(&ids).unwrap().to_vec2::<f32>().unwrap(), expected);
        }
        for table in [&own, &tied] {
            assert!(matches!(
                table.gather(&[3, 37]),
                Err(KernelError::Bound { value: 37, bound: 37, .. })
            ));
        }
        assert_eq!((own.bytes(), tied.bytes()), (37 * 5 * 4, 0));
    }
}
