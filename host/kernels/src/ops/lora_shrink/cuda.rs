//! Shrink on a device, and what both halves of LoRA work on there: weights, a table of them per module,
//! and the work of a step.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Device, Tensor};

use super::step::{Entry, Memory, Step, padded, shrink};
pub use super::step::{LoraKernel, LoraSpan};
use crate::cuda::{Operand, empty, upload, write_to};
use crate::launch::{ElementType, Ptr};
use crate::tensor::{rows, shape_error};
use crate::{KernelError, WeightBytes};

const OP: &str = "lora_shrink";

/// `A` and `B` of one module of one adapter, on a device.
#[derive(Debug)]
pub struct DevicePair {
    /// `[rank, in]`, runs padded with zeros to whole eights.
    a: Tensor,
    /// `[out, rank]`, padded as `a`.
    b: Tensor,
    rank: usize,
    in_features: usize,
    out_features: usize,
    scale: f32,
}

impl DevicePair {
    /// Copies `a`, `[rank, in]`, and `b`, `[out, rank]`, to `device`, rounded to `dtype`: that of the
    /// activations. `scale` is the factor of the product.
    ///
    /// # Errors
    /// A size of zero, two ranks that differ, another type than f32, f16 or bf16, or no memory.
    pub fn new(
        (a, b): (&WeightBytes<'_>, &WeightBytes<'_>),
        scale: f32,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        const OP: &str = "lora pair";
        ElementType::of(OP, "weights", dtype)?;
        let (rank, in_features, out_features) = (a.rows(), a.columns(), b.rows());
        if rank == 0 || in_features == 0 || out_features == 0 {
            return Err(KernelError::Size { op: OP, what: "zero" });
        }
        if b.columns() != rank {
            return Err(shape_error(OP, "b", &[out_features, rank], &[b.rows(), b.columns()]));
        }
        let copy = |weight: &WeightBytes<'_>| -> Result<Tensor, KernelError> {
            let (count, width) = (weight.rows(), weight.columns());
            let mut runs = vec![0.0; count * padded(width)];
            for (index, run) in runs.chunks_mut(padded(width)).enumerate() {
                weight.read_row(index, &mut run[..width]);
            }
            let shape = (count, padded(width));
            Ok(Tensor::from_vec(runs, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
        };
        let (a, b) = (copy(a)?, copy(b)?);
        Ok(Self { a, b, rank, in_features, out_features, scale })
    }

    /// Bytes held on the device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let elements = self.a.elem_count() + self.b.elem_count();
        (elements * self.a.dtype().size_in_bytes()) as u64
    }
}

/// The adapters of one module, by the number that spans name them with. Entries may be empty: adapters
/// that leave the module alone.
#[derive(Debug)]
pub struct DeviceTable {
    pairs: Vec<Option<Arc<DevicePair>>>,
    entries: CudaSlice<u8>,
    element: ElementType,
    dtype: DType,
    /// Inputs and outputs; of a table without adapters, zeros.
    sizes: (usize, usize),
    device: Device,
}

impl DeviceTable {
    /// A table for activations of type `dtype`.
    ///
    /// # Errors
    /// Pairs of different sizes, types or devices.
    pub fn new(
        pairs: Vec<Option<Arc<DevicePair>>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, KernelError> {
        const OP: &str = "lora table";
        let element = ElementType::of(OP, "activations", dtype)?;
        let mut sizes = (0, 0);
        let mut entries = Vec::with_capacity(pairs.len());
        let queue = crate::cuda::DeviceQueue::new(crate::cuda::device_of(OP, device)?)?;
        for pair in &pairs {
            let Some(pair) = pair else {
                entries.push(Entry { a: Ptr(0), b: Ptr(0), rank: 0, scale: 0.0 });
                continue;
            };
            if pair.a.dtype() != dtype {
                return Err(KernelError::Dtype { op: OP, operand: "pair", found: pair.a.dtype() });
            }
            if !pair.a.device().same_device(device) {
                return Err(KernelError::Device { op: OP, device: pair.a.device().location() });
            }
            let found = (pair.in_features, pair.out_features);
            if sizes != (0, 0) && sizes != found {
                return Err(shape_error(OP, "pair", &[sizes.0, sizes.1], &[found.0, found.1]));
            }
            sizes = found;
            let (a, b) = (Operand::hold(OP, "a", &pair.a)?, Operand::hold(OP, "b", &pair.b)?);
            let ((a, _a), (b, _b)) = (a.ptr(&queue)?, b.ptr(&queue)?);
            entries.push(Entry { a, b, rank: pair.rank as i32, scale: pair.scale });
        }
        let entries = upload(OP, &entries, device)?;
        Ok(Self { pairs, entries, element, dtype, sizes, device: device.clone() })
    }

    fn ranks(&self) -> Vec<usize> {
        self.pairs.iter().map(|pair| pair.as_ref().map_or(0, |pair| pair.rank)).collect()
    }

    pub(crate) fn out_features(&self) -> usize {
        self.sizes.1
    }

    pub(crate) fn check_dtype(&self, op: &'static str, x: &Tensor) -> Result<(), KernelError> {
        if x.dtype() == self.dtype {
            return Ok(());
        }
        Err(KernelError::Dtype { op, operand: "activations", found: x.dtype() })
    }
}

/// The work of a step for tables of the same ranks: made once, used by every module.
#[derive(Debug)]
pub struct DeviceStep {
    step: Step,
    items: CudaSlice<u8>,
    ranks: Vec<usize>,
}

impl DeviceStep {
    /// Cuts the work of spans over adapters of `table`. Spans of entries that `table` lacks are base rows.
    ///
    /// # Errors
    /// Spans that overlap or are out of order, or no memory.
    pub fn new(spans: &[LoraSpan], table: &DeviceTable) -> Result<Self, KernelError> {
        let ranks = table.ranks();
        let present = |span: &&LoraSpan| ranks.get(span.entry).is_none_or(|rank| *rank > 0);
        let spans: Vec<_> = spans.iter().filter(present).copied().collect();
        let step = Step::new(&spans, &ranks, table.element)?;
        let items = upload("lora step", &step.items, &table.device)?;
        Ok(Self { step, items, ranks })
    }

    /// Checks that the step was made for adapters of these ranks and lies within `rows` rows.
    fn check(&self, op: &'static str, table: &DeviceTable, rows: usize) -> Result<(), KernelError> {
        if self.ranks != table.ranks() {
            let (expected, found) = (self.ranks.clone(), table.ranks());
            return Err(KernelError::Shape { op, operand: "table's ranks", expected, found });
        }
        if self.step.rows > rows {
            let (value, bound) = (self.step.rows, rows);
            return Err(KernelError::Bound { op, what: "last row of a span", value, bound });
        }
        Ok(())
    }

    /// Floats of the hidden states.
    pub(crate) fn hidden_len(&self) -> usize {
        self.step.hidden_len
    }

    /// Runs `launch` on the memory of this step.
    pub(crate) fn on(
        &self,
        (op, table): (&'static str, &DeviceTable),
        (x, hidden): (Ptr, Ptr),
        (width, rows): (usize, usize),
        launch: impl Fn(&Step, &Memory) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        self.check(op, table, rows)?;
        let stream = table.entries.stream().clone();
        let (entries, _entries) = table.entries.device_ptr(&stream);
        let (items, _items) = self.items.device_ptr(&stream);
        let memory = Memory {
            x,
            hidden,
            entries: Ptr(entries),
            items: Ptr(items),
            width,
            element: table.element,
        };
        launch(&self.step, &memory)
    }
}

/// `x Aᵀ` of each span, one after another, f32: `x` is `[rows, in_features]` of the table's type, the
/// result is flat with `rows * rank` floats per span.
///
/// # Errors
/// Another width or type of `x`, a step of other ranks or more rows, or a failed launch.
pub fn lora_shrink(
    x: &Tensor,
    table: &DeviceTable,
    step: &DeviceStep,
) -> Result<Tensor, KernelError> {
    table.check_dtype(OP, x)?;
    if step.step.items.is_empty() {
        return Ok(Tensor::zeros(0, DType::F32, x.device())?);
    }
    let (width, found) = (table.sizes.0, rows(OP, "x", x, table.sizes.0)?);
    let source = Operand::hold(OP, "x", x)?;
    // SAFETY: shrink writes every hidden state of the step.
    let hidden = unsafe { empty(step.hidden_len(), DType::F32, x.device())? };
    write_to(OP, &hidden, |queue, hidden| {
        let (x, _x) = source.ptr(queue)?;
        step.on((OP, table), (x, hidden), (width, found), |step, memory| {
            // SAFETY: `x` has `found` rows of `width`, which `on` checked against the step; `hidden` was
            // made for the step; the table holds the weights of its entries.
            unsafe { shrink(queue, step, memory) }
        })
    })?;
    Ok(hidden)
}
