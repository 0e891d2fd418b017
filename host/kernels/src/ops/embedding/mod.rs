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
use crate::{KernelError, PackedLinear, WeightBytes, WeightFormat, on_device};

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
    Device(on_device::Table),
}

impl Embedding {
    /// A table of its own.
    ///
    /// # Errors
    /// A device this build can't use.
    pub fn new(weight: WeightBytes<'_>, device: &Device) -> Result<Self, KernelError> {
        let (entries, width) = (weight.rows(), weight.columns());
        if place(OP, device)? == Place::Cuda {
            let table = Table::Device(on_device::Table::new(&weight, device)?);
            return Ok(Self { table, entries, width });
        }
        let (bytes, format) = (weight.bytes().to_vec(), weight.format());
        Ok(Self { table: Table::Rows { bytes, format }, entries, width })
    }

    /// The rows of `linear`, an `lm_head` that shares its weight with the embedding.
    ///
    /// # Errors
    /// No memory for what a device holds twice.
    pub fn tied(linear: Arc<PackedLinear>) -> Result<Self, KernelError> {
        let (entries, width) = (linear.out_features(), linear.in_features());
        let table = match linear.on_device() {
            Some(linear) => Table::Device(on_device::Table::tied(linear)?),
            None => Table::Tied(linear),
        };
        Ok(Self { table, entries, width })
    }

    /// Bytes held; none of its own if tied.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.table {
            Table::Rows { bytes, .. } => bytes.len(),
            Table::Tied(_) => 0,
            Table::Device(table) => table.bytes(),
        }
    }

    /// As [`Embedding::gather`] for a table that has the rows of `first` and on of a larger one: zeros
    /// for ids that it does not have. The sum over all parts of the larger one is what it gives.
    ///
    /// # Errors
    /// As of [`Embedding::gather`], but for the ids.
    pub fn gather_part(&self, ids: &[u32], first: usize) -> Result<Tensor, KernelError> {
        if let Table::Device(table) = &self.table {
            return on_device::gather(table, ids, Some((first, self.entries)));
        }
        let own = |id: &u32| (*id as usize).checked_sub(first).filter(|id| *id < self.entries);
        let mut out = vec![0.0; ids.len() * self.width];
        let rows = out.chunks_exact_mut(self.width.max(1)).zip(ids);
        for (row, id) in rows.filter_map(|(row, id)| Some((row, own(id)?))) {
            self.read_row(id, row)?;
        }
        from_host(out, (ids.len(), self.width))
    }

    fn read_row(&self, id: usize, row: &mut [f32]) -> Result<(), KernelError> {
        match &self.table {
            Table::Rows { bytes, format } => {
                WeightBytes::new(bytes, *format, self.entries, self.width)?.read_row(id, row);
            }
            Table::Tied(linear) => linear.read_row(id, row),
            Table::Device(_) => unreachable!("rows of a device are gathered there"),
        }
        Ok(())
    }

    /// Row of each id, `[ids, width]`: f32 on the CPU, on a device of the table's type.
    ///
    /// # Errors
    /// An id that is not in the table.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor, KernelError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.entries) {
            let (value, bound) = (*id as usize, self.entries);
            return Err(KernelError::Bound { op: OP, what: "id", value, bound });
        }
        if let Table::Device(table) = &self.table {
            return on_device::gather(table, ids, None);
        }
        let mut out = vec![0.0; ids.len() * self.width];
        let rows = out.chunks_exact_mut(self.width.max(1)).zip(ids);
        for (row, id) in rows {
            self.read_row(*id as usize, row)?;
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
        let tied = Embedding::tied(Arc::new(linear)).unwrap();
        for ids in [vec![], vec![0], vec![36, 0, 17, 17]] {
            let expected: Vec<Vec<f32>> =
                ids.iter().map(|id| values[*id as usize * 5..][..5].to_vec()).collect();
            assert_eq!(own.gather(&ids).unwrap().to_vec2::<f32>().unwrap(), expected);
            assert_eq!(tied.gather(&ids).unwrap().to_vec2::<f32>().unwrap(), expected);
        }
        for table in [&own, &tied] {
            // Entries 30 to 66 of a larger table.
            let part = table.gather_part(&[29, 30, 66, 67], 30).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!((&part[0], &part[3]), (&vec![0.0; 5], &vec![0.0; 5]));
            assert_eq!((&part[1][..], &part[2][..]), (&values[..5], &values[36 * 5..]));
            assert!(matches!(
                table.gather(&[3, 37]),
                Err(KernelError::Bound { value: 37, bound: 37, .. })
            ));
        }
        assert_eq!((own.bytes(), tied.bytes()), (37 * 5 * 4, 0));
    }
}
