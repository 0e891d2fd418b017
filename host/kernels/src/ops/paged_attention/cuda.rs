//! Attention on a device.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Device, Tensor};

use super::AttentionShape;
use super::step::{Memory, Step, attend};
use crate::cuda::{Operand, empty, upload, write_to};
use crate::launch::{ElementType, Ptr};
use crate::ops::kv_write::cuda::DeviceBlocks;
use crate::ops::softcap::check_cap;
use crate::tensor::exactly;
use crate::{KernelError, KvGeometry, PagedPlan};

const OP: &str = "paged_attention";

/// The attention of a step: made once, used by every layer of the same heads and window. Layers run one
/// after another, so one set of parts serves them all.
#[derive(Debug)]
pub struct DeviceStep {
    step: Step,
    geometry: KvGeometry,
    shape: AttentionShape,
    tables: CudaSlice<u8>,
    spans: CudaSlice<u8>,
    items: CudaSlice<u8>,
    merges: CudaSlice<u8>,
    parts: Tensor,
    part_sums: Tensor,
}

impl DeviceStep {
    /// Cuts the rows of `plan` into pieces for blocks of `geometry` and type `dtype`.
    ///
    /// # Errors
    /// A plan for other blocks, heads or sizes that kernels have no code for, a softcap that is not
    /// positive, or no memory.
    pub fn new(
        plan: &PagedPlan,
        geometry: KvGeometry,
        shape: AttentionShape,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        plan.check_geometry(OP, &geometry)?;
        if let Some(cap) = shape.softcap {
            check_cap(OP, cap)?;
        }
        let element = ElementType::of(OP, "blocks", dtype)?;
        let step = Step::new(&plan.spans, &geometry, &shape, element)?;
        let heads = step.parts * shape.heads;
        // SAFETY: attention writes every part before it folds it.
        let parts = unsafe { empty(heads * geometry.head_dim, DType::F32, device)? };
        // SAFETY: as above.
        let part_sums = unsafe { empty(heads * 2, DType::F32, device)? };
        Ok(Self {
            tables: upload(OP, &step.tables, device)?,
            spans: upload(OP, &step.spans, device)?,
            items: upload(OP, &step.items, device)?,
            merges: upload(OP, &step.merges, device)?,
            step,
            geometry,
            shape,
            parts,
            part_sums,
        })
    }
}

/// `softmax(scale * q Kᵀ) V` per row and head: `q` and the result are `[rows, heads * head_dim]` of the
/// blocks' type. The rows' own keys and values must have been written before.
///
/// # Errors
/// Operands of other shapes or types, a step made for other blocks, or a failed launch.
pub fn paged_attention(
    q: &Tensor,
    blocks: &DeviceBlocks,
    step: &DeviceStep,
) -> Result<Tensor, KernelError> {
    if step.geometry != blocks.geometry() || step.step.element != blocks.element {
        return Err(KernelError::Size { op: OP, what: "step for other blocks" });
    }
    exactly(OP, "q", q, &[step.step.rows, step.shape.heads * step.geometry.head_dim])?;
    blocks.check_dtype(OP, "q", q)?;
    // SAFETY: attention writes every row of the step.
    let out = unsafe { empty(q.shape(), q.dtype(), q.device())? };
    let held = [
        Operand::hold(OP, "q", q)?,
        Operand::hold(OP, "keys", &blocks.keys)?,
        Operand::hold(OP, "values", &blocks.values)?,
    ];
    write_to(OP, &out, |queue, out| {
        write_to(OP, &step.parts, |_, parts| {
            write_to(OP, &step.part_sums, |_, part_sums| {
                let [(q, _q), (keys, _keys), (values, _values)] =
                    [held[0].ptr(queue)?, held[1].ptr(queue)?, held[2].ptr(queue)?];
                let stream = queue.stream();
                let (tables, _tables) = step.tables.device_ptr(stream);
                let (spans, _spans) = step.spans.device_ptr(stream);
                let (items, _items) = step.items.device_ptr(stream);
                let (merges, _merges) = step.merges.device_ptr(stream);
                let [tables, spans, items, merges] = [tables, spans, items, merges].map(Ptr);
                let memory =
                    Memory { q, out, keys, values, tables, spans, items, merges, parts, part_sums };
                let score = (step.shape.scale, step.shape.softcap);
                // SAFETY: `q` and `out` have the step's rows, the blocks its geometry, which the plan
                // checked the tables against; the lists are the step's own.
                unsafe { attend(queue, &step.step, &step.geometry, score, &memory) }
            })
        })
    })?;
    Ok(out)
}
