//! Keys and values on a device: the blocks of one layer, and the write of a step's rows.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Device, Tensor};

use super::device::{Memory, write};
use super::{KvFormat, KvGeometry, PagedPlan};
use crate::KernelError;
use crate::cuda::{Operand, upload, write_to};
use crate::launch::{ElementType, Ptr};
use crate::tensor::exactly;

const OP: &str = "kv_write";

/// Keys and values of one layer on a device.
#[derive(Debug)]
pub struct DeviceBlocks {
    /// `[blocks, kv_heads, block_tokens, head_dim]`
    pub(crate) keys: Tensor,
    /// `[blocks, kv_heads, head_dim, block_tokens]`
    pub(crate) values: Tensor,
    geometry: KvGeometry,
    pub(crate) element: ElementType,
}

impl DeviceBlocks {
    /// Allocates all blocks, zeroed, of type `dtype`: that of queries, keys and values, which a device
    /// keeps as they are.
    ///
    /// # Errors
    /// A geometry in halves for floats, a size of zero, sizes whose product overflows, another type than
    /// f32, f16 or bf16, or no memory.
    pub fn new(geometry: KvGeometry, dtype: DType, device: &Device) -> Result<Self, KernelError> {
        const OP: &str = "kv blocks";
        let element = ElementType::of(OP, "blocks", dtype)?;
        if geometry.bytes().is_none() {
            return Err(KernelError::Size { op: OP, what: "zero or too large" });
        }
        // A device keeps bytes nowhere, and halves as what they are computed in.
        let keeps = match geometry.format {
            KvFormat::F32 => true,
            KvFormat::F16 => dtype != DType::F32,
            KvFormat::Int8 => false,
        };
        if !keeps {
            return Err(KernelError::Dtype { op: OP, operand: "blocks", found: dtype });
        }
        let KvGeometry { blocks, block_tokens, kv_heads, head_dim, .. } = geometry;
        let keys = Tensor::zeros((blocks, kv_heads, block_tokens, head_dim), dtype, device)?;
        let values = Tensor::zeros((blocks, kv_heads, head_dim, block_tokens), dtype, device)?;
        Ok(Self { keys, values, geometry, element })
    }

    /// Sizes of the blocks.
    #[must_use]
    pub fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    pub(crate) fn check_dtype(
        &self,
        op: &'static str,
        operand: &'static str,
        tensor: &Tensor,
    ) -> Result<(), KernelError> {
        if tensor.dtype() == self.keys.dtype() {
            return Ok(());
        }
        Err(KernelError::Dtype { op, operand, found: tensor.dtype() })
    }
}

/// Where the rows of a step go: made once, used by every layer.
#[derive(Debug)]
pub struct DeviceSlots {
    slots: CudaSlice<u8>,
    rows: usize,
    plan_geometry: KvGeometry,
}

impl DeviceSlots {
    /// The slots of `plan`, made for blocks of `geometry`.
    ///
    /// # Errors
    /// A plan for other blocks, or no memory.
    pub fn new(
        plan: &PagedPlan,
        geometry: KvGeometry,
        device: &Device,
    ) -> Result<Self, KernelError> {
        plan.check_geometry(OP, &geometry)?;
        let slots: Vec<i64> = plan.slots().iter().map(|slot| *slot as i64).collect();
        let slots = upload(OP, &slots, device)?;
        Ok(Self { slots, rows: plan.slots().len(), plan_geometry: geometry })
    }
}

/// Writes the keys and values of all rows of a step, `[rows, kv_heads * head_dim]` each, to their slots.
///
/// # Errors
/// Operands of other shapes or types, slots of other blocks, or a failed launch.
pub fn kv_write(
    k: &Tensor,
    v: &Tensor,
    slots: &DeviceSlots,
    blocks: &mut DeviceBlocks,
) -> Result<(), KernelError> {
    let geometry = blocks.geometry;
    if slots.plan_geometry != geometry {
        return Err(KernelError::Size { op: OP, what: "slots of other blocks" });
    }
    let shape = [slots.rows, geometry.kv_heads * geometry.head_dim];
    for (operand, tensor) in [("k", k), ("v", v)] {
        exactly(OP, operand, tensor, &shape)?;
        blocks.check_dtype(OP, operand, tensor)?;
    }
    let (new_keys, new_values) = (Operand::hold(OP, "k", k)?, Operand::hold(OP, "v", v)?);
    write_to(OP, &blocks.keys, |queue, keys| {
        write_to(OP, &blocks.values, |_, values| {
            let ((k, _k), (v, _v)) = (new_keys.ptr(queue)?, new_values.ptr(queue)?);
            let (to, _to) = slots.slots.device_ptr(queue.stream());
            let memory = Memory { k, v, keys, values, slots: Ptr(to) };
            // SAFETY: `k` and `v` have a row per slot, and the plan checked the slots against the blocks.
            unsafe { write(queue, &geometry, slots.rows, blocks.element, memory) }
        })
    })
}
