//! A linear layer of eight-bit blocks on a device.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{DType, Device, Tensor};

use super::device::{Blocks, ROWS_MAX, Weight, product, widen};
use crate::cuda::{DeviceQueue, Operand, empty, upload, write_to};
use crate::launch::{ElementType, Ptr};
use crate::tensor::{rows, shape_error};
use crate::{KernelError, WeightBytes, WeightFormat};

const OP: &str = "gemv_q8";

/// A weight of a linear layer in eight-bit blocks on a device, with an optional bias.
#[derive(Debug)]
pub struct DeviceLinearQ8 {
    quants: CudaSlice<u8>,
    scales: CudaSlice<u8>,
    /// f32 `[out_features]`
    bias: Option<Tensor>,
    out_features: usize,
    in_features: usize,
    device: Device,
}

impl DeviceLinearQ8 {
    /// Copies a weight `[out_features, in_features]` of Q8_0 blocks and a bias `[out_features]` to
    /// `device`.
    ///
    /// # Errors
    /// Another format, an empty weight or one that is not finite, a bias of another length, or no memory.
    pub fn new(
        weight: &WeightBytes<'_>,
        bias: Option<&[f32]>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        if weight.format() != WeightFormat::Q8_0 {
            return Err(KernelError::Size { op: OP, what: "weight that is not Q8_0" });
        }
        let (out_features, in_features) = (weight.rows(), weight.columns());
        let blocks = Blocks::of_file(weight.bytes(), out_features, in_features)?;
        if let Some(bias) = bias.filter(|bias| bias.len() != out_features) {
            return Err(shape_error(OP, "bias", &[out_features], &[bias.len()]));
        }
        Ok(Self {
            quants: upload(OP, &blocks.quants, device)?,
            scales: upload(OP, &blocks.scales, device)?,
            bias: bias.map(|bias| Tensor::from_slice(bias, out_features, device)).transpose()?,
            out_features,
            in_features,
            device: device.clone(),
        })
    }

    /// Bytes held on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.elem_count() * 4);
        self.quants.len() + self.scales.len() + bias
    }

    /// `x Wᵀ + b` for `x`, `[rows, in_features]` of f32, f16 or bf16. Up to eight rows read the blocks
    /// themselves; more go to the matrix product of the tensor library, by way of a copy of the weight in
    /// the type of `x` that lives as long as the call.
    ///
    /// # Errors
    /// Another width or type of `x`, no memory, or a failed launch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let element = ElementType::of(OP, "x", x.dtype())?;
        let found = rows(OP, "x", x, self.in_features)?;
        if found > ROWS_MAX {
            return self.many(x);
        }
        // SAFETY: the kernel writes every element.
        let y = unsafe { empty((found, self.out_features), x.dtype(), x.device())? };
        let held = Operand::hold(OP, "x", x)?;
        write_to(OP, &y, |queue, y| {
            let (x, _x) = held.ptr(queue)?;
            self.on(queue, |weight| {
                // SAFETY: `x` and `y` have `found` rows of the weight's widths.
                unsafe { product(queue, weight, (x, y), found, element) }
            })
        })?;
        Ok(y)
    }

    /// The weight in floats of a type, `[out_features, in_features]`.
    ///
    /// # Errors
    /// Another type than f32, f16 or bf16, no memory, or a failed launch.
    pub fn dense(&self, dtype: DType) -> Result<Tensor, KernelError> {
        let element = ElementType::of(OP, "weight", dtype)?;
        let shape = (self.out_features, self.in_features);
        // SAFETY: the kernel writes every element.
        let dense = unsafe { empty(shape, dtype, &self.device)? };
        write_to(OP, &dense, |queue, out| {
            self.on(queue, |weight| {
                // SAFETY: `out` has the weight's sizes.
                unsafe { widen(queue, weight, out, element) }
            })
        })?;
        Ok(dense)
    }

    fn many(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let dense = self.dense(x.dtype())?;
        let y = x.matmul(&dense.t()?)?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(&bias.to_dtype(x.dtype())?)?),
            None => Ok(y),
        }
    }

    fn on(
        &self,
        queue: &DeviceQueue,
        launch: impl FnOnce(&Weight) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let stream = queue.stream();
        let (quants, _quants) = self.quants.device_ptr(stream);
        let (scales, _scales) = self.scales.device_ptr(stream);
        let held = self.bias.as_ref().map(|bias| Operand::hold(OP, "bias", bias)).transpose()?;
        let bias = held.as_ref().map(|bias| bias.ptr(queue)).transpose()?;
        launch(&Weight {
            quants: Ptr(quants),
            scales: Ptr(scales),
            bias: bias.as_ref().map(|(pointer, _)| *pointer),
            outputs: self.out_features,
            inputs: self.in_features,
        })
    }
}
