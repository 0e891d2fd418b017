//! Weights of linear layers and of the embedding on a device, and their products.
//!
//! Floats go to the matrix product of the tensor library, eight-bit blocks to `gemv_q8`. Blocks of fewer
//! bits have no kernels: they are refused when they are loaded.

use candle_core::{DType, Device, Tensor};

use crate::cuda::empty;
use crate::ops::embedding::cuda::DeviceEmbedding;
use crate::ops::gemv_q8::cuda::DeviceLinearQ8;
use crate::tensor::rows;
use crate::{KernelError, WeightBytes, WeightFormat};

const OP: &str = "linear";

/// A weight of a linear layer, with an optional bias.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    in_features: usize,
    out_features: usize,
    /// What adapters of the last steps were found at.
    pub(super) table: super::lora::LastTable,
}

#[derive(Debug)]
enum Weight {
    Float {
        /// `[out, in]`
        weight: Tensor,
        /// `[out]`, of the weight's type.
        bias: Option<Tensor>,
    },
    Q8(DeviceLinearQ8),
}

/// The type of floats that a weight is held in, blocks as what is computed with them.
fn dtype_of(format: WeightFormat) -> DType {
    match format {
        WeightFormat::F32 => DType::F32,
        WeightFormat::F16 => DType::F16,
        _ => DType::BF16,
    }
}

fn copied(weight: &WeightBytes<'_>, device: &Device) -> Result<Tensor, KernelError> {
    let shape = [weight.rows(), weight.columns()];
    let dtype = dtype_of(weight.format());
    if weight.format().is_quantized() {
        let host = Tensor::from_vec(weight.to_floats(), &shape[..], &Device::Cpu)?;
        return Ok(host.to_dtype(dtype)?.to_device(device)?);
    }
    Ok(Tensor::from_raw_buffer(weight.bytes(), dtype, &shape, device)?)
}

impl Linear {
    /// Copies a weight and a bias to `device`, rounded to `format` where it names blocks.
    pub(crate) fn pack(
        weight: &WeightBytes<'_>,
        bias: Option<&[f32]>,
        format: WeightFormat,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let (in_features, out_features) = (weight.columns(), weight.rows());
        let held = match format {
            WeightFormat::Q8_0 if weight.format() == format => {
                Weight::Q8(DeviceLinearQ8::new(weight, bias, device)?)
            }
            WeightFormat::Q8_0 => {
                let blocks = crate::ops::linear::rounded_q8_0(weight)?;
                let rounded = WeightBytes::new(&blocks, format, out_features, in_features)?;
                Weight::Q8(DeviceLinearQ8::new(&rounded, bias, device)?)
            }
            other if other.is_quantized() => return Err(KernelError::NoDevicePath { op: OP }),
            _ => {
                let weight = copied(weight, device)?;
                let bias = bias.map(|bias| {
                    Tensor::from_slice(bias, bias.len(), device)?.to_dtype(weight.dtype())
                });
                Weight::Float { bias: bias.transpose()?, weight }
            }
        };
        Ok(Self { weight: held, in_features, out_features, table: Default::default() })
    }

    pub(crate) fn bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        match &self.weight {
            Weight::Float { weight, bias } => of(weight) + bias.as_ref().map_or(0, of),
            Weight::Q8(linear) => linear.bytes(),
        }
    }

    /// `x Wᵀ + b`, of the type of `x`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let found = rows(OP, "x", x, self.in_features)?;
        if found == 0 {
            // SAFETY: there is nothing to write.
            return unsafe { empty((0, self.out_features), x.dtype(), x.device()) };
        }
        match &self.weight {
            Weight::Q8(linear) => linear.forward(x),
            Weight::Float { weight, bias } => {
                let y = x.to_dtype(weight.dtype())?.matmul(&weight.t()?)?;
                let y = match bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                };
                Ok(y.to_dtype(x.dtype())?)
            }
        }
    }
}

/// A table of embeddings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: DeviceEmbedding,
    /// Bytes that are not the head's.
    bytes: usize,
    device: Device,
}

impl Table {
    /// A table of its own.
    pub(crate) fn new(weight: &WeightBytes<'_>, device: &Device) -> Result<Self, KernelError> {
        let table = copied(weight, device)?;
        let bytes = table.elem_count() * table.dtype().size_in_bytes();
        Ok(Self { rows: DeviceEmbedding::tied(table)?, bytes, device: device.clone() })
    }

    /// The rows of `linear`. Those of eight-bit blocks are held a second time, in halves.
    pub(crate) fn tied(linear: &Linear) -> Result<Self, KernelError> {
        let (table, bytes) = match &linear.weight {
            Weight::Float { weight, .. } => (weight.clone(), 0),
            Weight::Q8(blocks) => {
                let table = blocks.dense(DType::BF16)?;
                let bytes = table.elem_count() * table.dtype().size_in_bytes();
                (table, bytes)
            }
        };
        let device = table.device().clone();
        Ok(Self { rows: DeviceEmbedding::tied(table)?, bytes, device })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Row of each id; where the table is a part that begins at `first` of a larger one, zeros for ids that it
/// does not have.
pub(crate) fn gather(
    table: &Table,
    ids: &[u32],
    part: Option<(usize, usize)>,
) -> Result<Tensor, KernelError> {
    let Some((first, entries)) = part else { return table.rows.gather(ids) };
    let own = |id: &u32| (*id as usize).checked_sub(first).filter(|id| *id < entries);
    let local: Vec<u32> = ids.iter().map(|id| own(id).unwrap_or(0) as u32).collect();
    let mask: Vec<f32> = ids.iter().map(|id| f32::from(u8::from(own(id).is_some()))).collect();
    let found = table.rows.gather(&local)?;
    let mask = Tensor::from_vec(mask, (ids.len(), 1), &table.device)?.to_dtype(found.dtype())?;
    Ok(found.broadcast_mul(&mask)?)
}
