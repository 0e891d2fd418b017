//! From tensors to addresses: shapes and types are the op's to check, contiguity and place are checked
//! here. Nothing here computes.

use std::ops::Deref;

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop,
};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor,
};

use super::{DeviceQueue, device_of};
use crate::KernelError;
use crate::launch::{ElementType, Ptr};

/// A contiguous tensor on a CUDA device, held for reading; `G` is the library's read guard.
pub(crate) struct Operand<G> {
    storage: G,
    start: usize,
    op: &'static str,
}

impl<'a> Operand<()> {
    /// Holds `tensor`.
    pub(crate) fn hold(
        op: &'static str,
        operand: &'static str,
        tensor: &'a Tensor,
    ) -> Result<Operand<impl Deref<Target = Storage> + 'a>, KernelError> {
        let (storage, layout) = tensor.storage_and_layout();
        let (start, _) =
            layout.contiguous_offsets().ok_or(KernelError::NotContiguous { op, operand })?;
        Ok(Operand { storage, start, op })
    }
}

impl<G: Deref<Target = Storage>> Operand<G> {
    /// Where the tensor's first element lies. The guard is to be dropped after the launch that reads it.
    pub(crate) fn ptr<'b>(
        &'b self,
        queue: &'b DeviceQueue,
    ) -> Result<(Ptr, SyncOnDrop<'b>), KernelError> {
        match &*self.storage {
            Storage::Cuda(storage) => Ok(address(storage, self.start, queue.stream())?),
            other => Err(KernelError::Device { op: self.op, device: other.device().location() }),
        }
    }
}

fn at<'b, T>(
    slice: &'b CudaSlice<T>,
    start: usize,
    stream: &'b CudaStream,
) -> (Ptr, SyncOnDrop<'b>) {
    let (pointer, guard) = slice.device_ptr(stream);
    (Ptr(pointer).offset(start * size_of::<T>()), guard)
}

fn address<'b>(
    storage: &'b CudaStorage,
    start: usize,
    stream: &'b CudaStream,
) -> candle_core::Result<(Ptr, SyncOnDrop<'b>)> {
    match &storage.slice {
        CudaStorageSlice::F32(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::F16(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::BF16(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::U8(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::U32(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::I32(slice) => Ok(at(slice, start, stream)),
        CudaStorageSlice::I64(slice) => Ok(at(slice, start, stream)),
        _ => candle_core::bail!("no kernel takes this type of elements"),
    }
}

/// Runs `launch` with the address of `target`, which it may write, and nothing else may touch meanwhile.
/// Tensors that share `target`'s memory must not be held.
pub(crate) fn write_to(
    op: &'static str,
    target: &Tensor,
    launch: impl Fn(&DeviceQueue, Ptr) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    Ok(target.inplace_op1(&Write { op, launch })?)
}

struct Write<F> {
    op: &'static str,
    launch: F,
}

impl<F: Fn(&DeviceQueue, Ptr) -> Result<(), KernelError>> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let device = Device::Cpu.location();
        Err(candle_core::Error::wrap(KernelError::Device { op: self.op, device }))
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, _)) = layout.contiguous_offsets() else {
            let error = KernelError::NotContiguous { op: self.op, operand: "output" };
            return Err(candle_core::Error::wrap(error));
        };
        let queue = DeviceQueue::new(&storage.device).map_err(candle_core::Error::wrap)?;
        let stream = queue.stream().clone();
        let (pointer, guard) = match &mut storage.slice {
            CudaStorageSlice::F32(slice) => at_mut(slice, start, &stream),
            CudaStorageSlice::F16(slice) => at_mut(slice, start, &stream),
            CudaStorageSlice::BF16(slice) => at_mut(slice, start, &stream),
            CudaStorageSlice::U8(slice) => at_mut(slice, start, &stream),
            CudaStorageSlice::U32(slice) => at_mut(slice, start, &stream),
            _ => candle_core::bail!("no kernel writes this type of elements"),
        };
        let done = (self.launch)(&queue, pointer).map_err(candle_core::Error::wrap);
        drop(guard);
        done
    }
}

fn at_mut<'b, T>(
    slice: &'b mut CudaSlice<T>,
    start: usize,
    stream: &'b CudaStream,
) -> (Ptr, SyncOnDrop<'b>) {
    let (pointer, guard) = slice.device_ptr_mut(stream);
    (Ptr(pointer).offset(start * size_of::<T>()), guard)
}

/// A tensor whose elements are yet to be written.
///
/// # Safety
/// The caller must have a kernel write every element before any is read.
pub(crate) unsafe fn empty(
    shape: impl Into<candle_core::Shape>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor, KernelError> {
    let shape = shape.into();
    if shape.elem_count() == 0 {
        // A device has no memory of zero bytes.
        return Ok(Tensor::zeros(1, dtype, device)?.narrow(0, 0, 0)?.reshape(shape)?);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { Tensor::empty(shape, dtype, device)? })
}

/// Plain values on a device.
pub(crate) fn upload<T: Copy>(
    op: &'static str,
    values: &[T],
    device: &Device,
) -> Result<CudaSlice<u8>, KernelError> {
    let device: &CudaDevice = device_of(op, device)?;
    // SAFETY: initialised values of a plain type without padding, read as bytes.
    let bytes =
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
    // A device has no memory of zero bytes.
    let bytes = if bytes.is_empty() { &[0] } else { bytes };
    Ok(device.clone_htod(bytes)?)
}

impl ElementType {
    /// The type of a tensor's elements, as kernels know it.
    pub(crate) fn of(
        op: &'static str,
        operand: &'static str,
        found: DType,
    ) -> Result<Self, KernelError> {
        match found {
            DType::F32 => Ok(Self::F32),
            DType::F16 => Ok(Self::F16),
            DType::BF16 => Ok(Self::Bf16),
            found => Err(KernelError::Dtype { op, operand, found }),
        }
    }
}
