//! Matrix product with a weight that stays: `y = x Wᵀ + b`.
//!
//! The weight is packed once, as wide as it is to be kept, into panels of sixteen outputs, and each
//! output adds up its inputs in order. So an output has the same bits for one row as for a thousand.

mod blocks;
mod float;
mod group;

use candle_core::{Device, Tensor};

use super::columns::{Columns, Tile};
use crate::aligned::LANES;
use crate::dispatch::Level;
use crate::prefetch::{Ahead, Span};
use crate::tensor::{Place, place, shape_error};
use crate::{KernelError, WeightBytes, WeightFormat, on_device};
use blocks::{PackedBlocks, QuantizedRows};
use float::FloatPanels;

#[cfg(feature = "cuda")]
pub(crate) use blocks::rounded_q8_0;
pub use group::{GroupMember, LinearInput, linear_group};

const OP: &str = "linear";

/// A weight of a linear layer, packed, with an optional bias.
#[derive(Debug)]
pub struct PackedLinear {
    panels: Panels,
    /// Padded to whole panels; empty without a bias.
    bias: Vec<f32>,
    in_features: usize,
    out_features: usize,
}

#[derive(Debug)]
enum Panels {
    Float(FloatPanels),
    Blocks(PackedBlocks),
    Device(on_device::Linear),
}

/// Rows as a product takes them.
enum Rows<'a> {
    /// `[rows][in_features]`
    Float(&'a [f32]),
    Quantized(&'a QuantizedRows),
}

impl PackedLinear {
    /// Packs a weight `[out_features, in_features]`, and a bias `[out_features]`, for `device`. Floats
    /// are kept as wide as they are and blocks as they are, unless `format` names blocks that floats are
    /// rounded to by the rules of GGML.
    ///
    /// # Errors
    /// An empty weight, one that can't be rounded to `format` (blocks already, or numbers that are not
    /// finite), a bias of another length, or a device this build can't use.
    pub fn pack(
        weight: WeightBytes<'_>,
        bias: Option<&[f32]>,
        format: Option<WeightFormat>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        let (out_features, in_features) = (weight.rows(), weight.columns());
        if out_features == 0 || in_features == 0 {
            return Err(KernelError::Size { op: OP, what: "empty weight" });
        }
        let format = format.unwrap_or(weight.format());
        if weight.format().is_quantized() && weight.format() != format {
            return Err(KernelError::Size { op: OP, what: "a weight rounded twice" });
        }
        if place(OP, device)? == Place::Cuda {
            let panels = Panels::Device(on_device::Linear::pack(&weight, bias, format, device)?);
            return Ok(Self { panels, bias: Vec::new(), in_features, out_features });
        }
        let bias = match bias {
            Some(bias) if bias.len() != out_features => {
                return Err(shape_error(OP, "bias", &[out_features], &[bias.len()]));
            }
            Some(bias) => {
                let mut bias = bias.to_vec();
                bias.resize(out_features.next_multiple_of(LANES), 0.0);
                bias
            }
            None => Vec::new(),
        };
        let panels = match format.is_quantized() {
            true => Panels::Blocks(PackedBlocks::pack(&weight, format)?),
            false if format == weight.format() => Panels::Float(FloatPanels::pack(&weight)?),
            false => return Err(KernelError::Size { op: OP, what: "floats of another width" }),
        };
        Ok(Self { panels, bias, in_features, out_features })
    }

    /// Inputs of the layer.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Outputs of the layer.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let panels = match &self.panels {
            Panels::Float(panels) => panels.bytes(),
            Panels::Blocks(blocks) => blocks.bytes(),
            Panels::Device(linear) => linear.bytes(),
        };
        panels + self.bias.len() * size_of::<f32>()
    }

    /// `x Wᵀ + b`: `[rows, in_features]` to `[rows, out_features]`, f32. Against weights in blocks, `x`
    /// is rounded to eight bits, 32 inputs at a time.
    ///
    /// # Errors
    /// An operand of another shape or type, or on a device this build can't use.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let members = [GroupMember { linear: self, segments: Vec::new() }];
        let mut outputs = linear_group(&LinearInput::new(x), &members, &[])?;
        Ok(outputs.pop().expect("an output per member"))
    }

    /// Writes row `index` of the weight, `in_features` floats, to `target`.
    ///
    /// # Panics
    /// If `index` is not an output or `target` has another length.
    pub(crate) fn read_row(&self, index: usize, target: &mut [f32]) {
        assert!(index < self.out_features && target.len() == self.in_features);
        match &self.panels {
            Panels::Float(panels) => panels.read_row(index, target),
            Panels::Blocks(blocks) => blocks.read_row(index, target),
            Panels::Device(_) => unreachable!("rows of a device are gathered there"),
        }
    }

    /// The weight on a device, if that is where it is.
    pub(crate) fn on_device(&self) -> Option<&on_device::Linear> {
        match &self.panels {
            Panels::Device(linear) => Some(linear),
            _ => None,
        }
    }

    fn is_quantized(&self) -> bool {
        matches!(self.panels, Panels::Blocks(_))
    }

    /// What the product of a tile reads of the weight.
    fn spans(&self, tile: Tile) -> [Span; 2] {
        match &self.panels {
            Panels::Blocks(blocks) => blocks.spans(tile.panel..tile.panel + tile.panels),
            // Their products ask for nothing on the way.
            Panels::Float(_) | Panels::Device(_) => [Span::of::<u8>(&[]); 2],
        }
    }

    /// Writes the products of a tile, and asks for what comes after on the way.
    fn product(
        &self,
        level: Level,
        x: &Rows<'_>,
        tile: Tile,
        (out, ahead): (&mut Columns<'_>, &mut Ahead<'_>),
    ) {
        let (first, last) = (tile.panel * LANES, (tile.panel + tile.panels) * LANES);
        let bias = self.bias.get(first..last).unwrap_or_default();
        match (&self.panels, x) {
            (Panels::Float(panels), Rows::Float(x)) => {
                let depth = self.in_features;
                let x = &x[tile.row * depth..(tile.row + tile.rows) * depth];
                ahead.rest();
                panels.product(level, (x, bias), tile, out);
            }
            (Panels::Blocks(blocks), Rows::Quantized(x)) => {
                blocks.product(level, (x, bias), tile, (out, ahead));
            }
            _ => unreachable!("rows are made as the weight wants them"),
        }
    }
}

#[cfg(test)]
mod tests;
