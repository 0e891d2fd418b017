//! Matrix product with a weight that stays: `y = x Wᵀ + b`.
//!
//! The weight is packed once into panels of sixteen outputs, `[out/16][in][16]`, and each output
//! adds up its inputs in order. So an output has the same bits for one row as for a thousand.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::columns::{Columns, for_tiles};
use crate::aligned::{AlignedFloats, LANES};
use crate::dispatch::{Level, level};
use crate::simd::vector_levels;
use crate::tensor::{Place, WeightBytes, from_host, host_floats, place, rows, shape_error};
use crate::{KernelError, cuda};

const OP: &str = "linear";

vector_levels! {
    fn gemm(x: &[f32], weight: &Panels<'_>, out: &mut Columns<'_>)
}

/// Panels of a packed weight that one task works on.
struct Panels<'a> {
    /// `[panels][depth][16]`
    floats: &'a [f32],
    /// One float per output of these panels, padded to sixteen; empty without a bias.
    bias: &'a [f32],
    /// Inputs.
    depth: usize,
}

/// A weight of a linear layer, packed, with an optional bias.
#[derive(Debug)]
pub struct PackedLinear {
    panels: AlignedFloats,
    bias: Vec<f32>,
    in_features: usize,
    out_features: usize,
}

impl PackedLinear {
    /// Packs a weight `[out_features, in_features]`, and a bias `[out_features]`, for `device`.
    ///
    /// # Errors
    /// An empty weight, a bias of another length, or a device this build can't use.
    pub fn pack(
        weight: WeightBytes<'_>,
        bias: Option<&[f32]>,
        device: &Device,
    ) -> Result<Self, KernelError> {
        if place(OP, device)? == Place::Cuda {
            return cuda::refuse(OP);
        }
        let (out_features, in_features) = (weight.rows(), weight.columns());
        if out_features == 0 || in_features == 0 {
            return Err(KernelError::Size { op: OP, what: "empty weight" });
        }
        let padded = out_features.next_multiple_of(LANES);
        let len = padded
            .checked_mul(in_features)
            .filter(|len| *len <= isize::MAX as usize / size_of::<f32>())
            .ok_or(KernelError::Size { op: OP, what: "weight" })?;
        let mut panels = AlignedFloats::zeros(len);
        panels.as_mut_slice().par_chunks_mut(in_features * LANES).enumerate().for_each(
            |(panel, target)| {
                let mut row = vec![0.0; in_features];
                for lane in 0..LANES.min(out_features - panel * LANES) {
                    weight.read_row(panel * LANES + lane, &mut row);
                    for (i, value) in row.iter().enumerate() {
                        target[i * LANES + lane] = *value;
                    }
                }
            },
        );
        let bias = match bias {
            Some(bias) if bias.len() != out_features => {
                return Err(shape_error(OP, "bias", &[out_features], &[bias.len()]));
            }
            Some(bias) => {
                let mut bias = bias.to_vec();
                bias.resize(padded, 0.0);
                bias
            }
            None => Vec::new(),
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
        self.panels.bytes() + self.bias.len() * size_of::<f32>()
    }

    /// `x Wᵀ + b`: `[rows, in_features]` to `[rows, out_features]`, f32.
    ///
    /// # Errors
    /// An operand of another shape or type, or on a device this build can't use.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, KernelError> {
        let rows = rows(OP, "x", x, self.in_features)?;
        if place(OP, x.device())? == Place::Cuda {
            return cuda::refuse(OP);
        }
        let x = host_floats(OP, "x", x)?;
        let mut out = vec![0.0; rows * self.out_features];
        self.forward_rows(level(), x.as_slice()?, &mut out);
        from_host(out, (rows, self.out_features))
    }

    /// Writes row `index` of the weight, `in_features` floats, to `target`.
    ///
    /// # Panics
    /// If `index` is not an output or `target` has another length.
    pub(crate) fn read_row(&self, index: usize, target: &mut [f32]) {
        assert!(index < self.out_features && target.len() == self.in_features);
        let panel = index / LANES * LANES * self.in_features;
        let panel = &self.panels.as_slice()[panel..panel + LANES * self.in_features];
        for (value, lanes) in target.iter_mut().zip(panel.chunks_exact(LANES)) {
            *value = lanes[index % LANES];
        }
    }

    fn forward_rows(&self, level: Level, x: &[f32], out: &mut [f32]) {
        let (depth, width) = (self.in_features, self.out_features);
        let rows = x.len() / depth;
        assert!(x.len() == rows * depth && out.len() == rows * width);
        for_tiles(out, (rows, width), depth, |tile, columns| {
            let (first, last) = (tile.panel * LANES, (tile.panel + tile.panels) * LANES);
            let weight = Panels {
                floats: &self.panels.as_slice()[first * depth..last * depth],
                bias: self.bias.get(first..last).unwrap_or_default(),
                depth,
            };
            let x = &x[tile.row * depth..(tile.row + tile.rows) * depth];
            run(level, x, &weight, columns);
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use half::{bf16, f16};

    use super::*;
    use crate::ops::testing::{Random, assert_same_bits, on_levels};

    fn packed(weight: &[f32], bias: Option<&[f32]>, depth: usize) -> PackedLinear {
        let bytes: Vec<u8> = weight.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, DType::F32, weight.len() / depth, depth).unwrap();
        PackedLinear::pack(weight, bias, &Device::Cpu).unwrap()
    }

    #[test]
    fn vectors_agree_with_scalar_on_awkward_shapes() {
        let mut random = Random::new(4);
        let rows = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 23, 97, 200];
        for (index, rows) in rows.into_iter().enumerate() {
            for (depth, width) in [(1, 1), (7, 17), (64, 16), (300, 31), (257, 161), (16, 300)] {
                let weight = random.floats(depth * width);
                let bias = random.floats(width);
                let linear = packed(&weight, (index % 2 == 0).then_some(&bias), depth);
                let x = random.floats(rows * depth);
                let out = on_levels(|level| {
                    let mut out = vec![f32::NAN; rows * width];
                    linear.forward_rows(level, &x, &mut out);
                    out
                });
                let row = random.below(rows);
                let mut alone = vec![0.0; width];
                linear.forward_rows(level(), &x[row * depth..(row + 1) * depth], &mut alone);
                assert_same_bits(&alone, &out[row * width..(row + 1) * width]);
            }
        }
    }

    #[test]
    fn is_the_product() {
        let mut random = Random::new(5);
        let (rows, depth, width) = (3, 70, 33);
        let (x, weight) = (random.floats(rows * depth), random.floats(width * depth));
        let bias = random.floats(width);
        let x = from_host(x, (rows, depth)).unwrap();
        let out = packed(&weight, Some(&bias), depth).forward(&x).unwrap();
        let weight = from_host(weight, (width, depth)).unwrap();
        let bias = from_host(bias, width).unwrap();
        let expected = x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        let error = (out - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn half_weights_are_widened_exactly() {
        let values = Random::new(6).floats(5 * 3);
        let narrow: Vec<f32> = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, DType::F16, 5, 3).unwrap();
        assert_same_bits(&weight.to_floats(), &narrow);
        let narrow: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let weight = WeightBytes::new(&bytes, DType::BF16, 5, 3).unwrap();
        assert_same_bits(&weight.to_floats(), &narrow);
        assert!(WeightBytes::new(&bytes, DType::F32, 5, 3).is_err());
        assert!(WeightBytes::new(&bytes, DType::U8, 5, 6).is_err());
        let linear = PackedLinear::pack(weight, None, &Device::Cpu).unwrap();
        let mut row = [0.0; 3];
        linear.read_row(4, &mut row);
        assert_same_bits(&row, &narrow[12..]);
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let linear = packed(&[1.0; 6], None, 3);
        let x = from_host(vec![0.0; 8], (2, 4)).unwrap();
        assert!(matches!(linear.forward(&x), Err(KernelError::Shape { operand: "x", .. })));
        let bytes = [0; 24];
        let weight = WeightBytes::new(&bytes, DType::F32, 2, 3).unwrap();
        assert!(PackedLinear::pack(weight, Some(&[0.0; 3]), &Device::Cpu).is_err());
        let none = WeightBytes::new(&[], DType::F32, 0, 3).unwrap();
        assert!(PackedLinear::pack(none, None, &Device::Cpu).is_err());
        let no_rows = from_host(vec![], (0, 3)).unwrap();
        assert_eq!(linear.forward(&no_rows).unwrap().dims(), [0, 2]);
    }
}
