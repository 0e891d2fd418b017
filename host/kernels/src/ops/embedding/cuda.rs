//! A table of embeddings on a device.

use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{DType, Device, Tensor};

use super::device::gather;
use crate::cuda::{Operand, empty, upload, write_to};
use crate::launch::{ElementType, Ptr};
use crate::{KernelError, WeightBytes};

const OP: &str = "embedding";

/// A table `[entries, width]` on a device.
#[derive(Debug)]
pub struct DeviceEmbedding {
    table: Tensor,
    element: ElementType,
    entries: usize,
    width: usize,
}

impl DeviceEmbedding {
    /// Copies `weight` to `device` as `dtype`, f32, f16 or bf16.
    ///
    /// # Errors
    /// Another type, or no memory.
    pub fn new(
        weight: WeightBytes<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let element = ElementType::of(OP, "table", dtype)?;
        let (entries, width) = (weight.rows(), weight.columns());
        let mut floats = vec![0.0; entries * width];
        for (index, row) in floats.chunks_exact_mut(width.max(1)).enumerate() {
            weight.read_row(index, row);
        }
        let host = Tensor::from_vec(floats, (entries, width), &Device::Cpu)?;
        let table = host.to_dtype(dtype)?.to_device(device)?;
        Ok(Self { table, element, entries, width })
    }

    /// A table that lies on a device already, `[entries, width]`: an `lm_head` that is tied to it.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn tied(table: Tensor) -> Result<Self, KernelError> {
        let element = ElementType::of(OP, "table", table.dtype())?;
        let (entries, width) = table.dims2()?;
        Ok(Self { table, element, entries, width })
    }

    /// Row of each id, `[ids, width]` of the table's type.
    ///
    /// # Errors
    /// An id that is not in the table, or a failed launch.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor, KernelError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.entries) {
            let (value, bound) = (*id as usize, self.entries);
            return Err(KernelError::Bound { op: OP, what: "id", value, bound });
        }
        let shape = (ids.len(), self.width);
        // SAFETY: the kernel writes every element.
        let out = unsafe { empty(shape, self.table.dtype(), self.table.device())? };
        let of_rows = upload(OP, ids, self.table.device())?;
        let held = Operand::hold(OP, "table", &self.table)?;
        write_to(OP, &out, |queue, out| {
            let (table, _table) = held.ptr(queue)?;
            let (ids, _ids) = of_rows.device_ptr(queue.stream());
            // SAFETY: every id was found in the table, and `out` has a row for each.
            unsafe { gather(queue, (table, Ptr(ids), out), shape, self.element) }
        })?;
        Ok(out)
    }
}
