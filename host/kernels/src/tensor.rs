//! Between candle's tensors and slices of floats: shapes, types and places checked in one file.

use std::ops::Deref;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, DeviceLocation, Layout, Shape, Storage, Tensor};

use crate::KernelError;

/// Where an op is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    Cuda,
}

/// Place of a device, or an error for one that no op has code for.
pub(crate) fn place(op: &'static str, device: &Device) -> Result<Place, KernelError> {
    match device.location() {
        DeviceLocation::Cpu => Ok(Place::Cpu),
        DeviceLocation::Cuda { .. } => Ok(Place::Cuda),
        device => Err(KernelError::Device { op, device }),
    }
}

/// The floats of a contiguous f32 tensor on the CPU, borrowed; `G` is the library's read guard.
pub(crate) struct HostFloats<G> {
    storage: G,
    start: usize,
    len: usize,
    op: &'static str,
}

/// Borrows the floats of a tensor.
pub(crate) fn host_floats<'a>(
    op: &'static str,
    operand: &'static str,
    tensor: &'a Tensor,
) -> Result<HostFloats<impl Deref<Target = Storage> + 'a>, KernelError> {
    if tensor.dtype() != DType::F32 {
        return Err(KernelError::Dtype { op, operand, found: tensor.dtype() });
    }
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) =
        layout.contiguous_offsets().ok_or(KernelError::NotContiguous { op, operand })?;
    Ok(HostFloats { storage, start, len: end - start, op })
}

impl<G: Deref<Target = Storage>> HostFloats<G> {
    pub(crate) fn as_slice(&self) -> Result<&[f32], KernelError> {
        match &*self.storage {
            Storage::Cpu(storage) => {
                Ok(&storage.as_slice::<f32>()?[self.start..self.start + self.len])
            }
            other => Err(KernelError::Device { op: self.op, device: other.device().location() }),
        }
    }
}

/// Rows and width of a tensor that must be `[rows, width]`.
pub(crate) fn rows(
    op: &'static str,
    operand: &'static str,
    tensor: &Tensor,
    width: usize,
) -> Result<usize, KernelError> {
    match tensor.dims() {
        [rows, found] if *found == width => Ok(*rows),
        dims => Err(shape_error(op, operand, &[dims.first().copied().unwrap_or(0), width], dims)),
    }
}

/// Checks that a tensor has exactly these dimensions.
pub(crate) fn exactly(
    op: &'static str,
    operand: &'static str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<(), KernelError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(shape_error(op, operand, expected, tensor.dims()))
}

pub(crate) fn shape_error(
    op: &'static str,
    operand: &'static str,
    expected: &[usize],
    found: &[usize],
) -> KernelError {
    KernelError::Shape { op, operand, expected: expected.to_vec(), found: found.to_vec() }
}

/// A tensor on the CPU that owns `values`.
pub(crate) fn from_host(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor, KernelError> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// The floats of a contiguous f32 tensor, inside an in-place op.
pub(crate) fn floats_mut<'a>(
    op: &'static str,
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        let error = KernelError::NotContiguous { op, operand: "in-place operand" };
        return Err(candle_core::Error::wrap(error));
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        other => {
            let found = other.dtype();
            let error = KernelError::Dtype { op, operand: "in-place operand", found };
            Err(candle_core::Error::wrap(error))
        }
    }
}
