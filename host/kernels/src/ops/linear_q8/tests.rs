//! The product against plain arithmetic, every instruction set against scalar, and what is refused.

use candle_core::DType;
use half::f16;

use super::*;
use crate::dispatch::Level;
use crate::ops::testing::{Random, assert_same_bits, on_levels};

fn packed(weight: &[f32], bias: Option<&[f32]>, depth: usize) -> PackedLinearQ8 {
    let bytes: Vec<u8> = weight.iter().flat_map(|v| v.to_le_bytes()).collect();
    let weight = WeightBytes::new(&bytes, DType::F32, weight.len() / depth, depth).unwrap();
    PackedLinearQ8::pack(weight, bias, &Device::Cpu).unwrap()
}

/// What GGML's Q8_0 makes of a row: quants of the exact scale, the scale in f16.
fn dequantized(row: &[f32]) -> Vec<f32> {
    let block = |values: &[f32]| {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let kept = f16::from_f32(scale).to_f32();
        values.iter().map(|v| (v * inverse).round() * kept).collect::<Vec<_>>()
    };
    row.chunks(BLOCK).flat_map(block).collect()
}

#[test]
fn vectors_agree_with_scalar_and_rows_with_themselves_alone() {
    let mut random = Random::new(14);
    let rows = [1, 2, 3, 4, 5, 7, 8, 9, 12, 17, 97];
    for (index, rows) in rows.into_iter().enumerate() {
        for (depth, width) in [(1, 1), (31, 17), (32, 16), (64, 64), (300, 31), (257, 161)] {
            let (weight, bias) = (random.floats(depth * width), random.floats(width));
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
fn is_the_product_of_the_rounded_weight() {
    let mut random = Random::new(15);
    let (rows, depth, width) = (3, 200, 33);
    let (x, weight) = (random.floats(rows * depth), random.floats(width * depth));
    let bias = random.floats(width);
    let tensor = from_host(x.clone(), (rows, depth)).unwrap();
    let out = packed(&weight, Some(&bias), depth).forward(&tensor).unwrap();
    let out: Vec<Vec<f32>> = out.to_vec2().unwrap();
    for (x, out) in x.chunks(depth).zip(&out) {
        for (output, found) in out.iter().enumerate() {
            let row = dequantized(&weight[output * depth..(output + 1) * depth]);
            let expect: f64 =
                row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
                    + f64::from(bias[output]);
            // Activations in eight bits are off by up to half of 1/127 each, in random directions.
            let bound = 4.0 * (depth as f64).sqrt() * 0.5 / 127.0 / 3.0;
            assert!((expect - f64::from(*found)).abs() < bound, "{expect} against {found}");
        }
    }
}

#[test]
fn whole_numbers_are_exact() {
    // Scales of one: weights and activations up to 127 are their own quants.
    let (depth, width) = (64, 20);
    let mut random = Random::new(16);
    let mut whole = |count: usize| -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| random.below(255) as f32 - 127.0).collect();
        values.chunks_mut(BLOCK).for_each(|block| block[0] = 127.0);
        values
    };
    let (x, weight) = (whole(2 * depth), whole(width * depth));
    let linear = packed(&weight, None, depth);
    let out = on_levels(|level| {
        let mut out = vec![0.0; 2 * width];
        linear.forward_rows(level, &x, &mut out);
        out
    });
    for (row, x) in x.chunks(depth).enumerate() {
        for (output, weight) in weight.chunks(depth).enumerate() {
            let expect: f32 = weight.iter().zip(x).map(|(w, x)| w * x).sum();
            assert_eq!(out[row * width + output], expect);
        }
    }
}

#[test]
fn zeros_and_what_is_no_number() {
    let linear = packed(&[0.0; 64], None, 32);
    let mut out = [1.0; 2];
    linear.forward_rows(Level::Scalar, &[0.0; 32], &mut out);
    assert_eq!(out, [0.0; 2]);
    let linear = packed(&[0.5; 64], None, 32);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = [1.0; 64];
        x[3] = bad;
        let out = on_levels(|level| {
            let mut out = vec![0.0; 4];
            linear.forward_rows(level, &x, &mut out);
            // A NaN's bits are the CPU's own.
            out.iter().map(|value| if value.is_nan() { -1.0 } else { *value }).collect()
        });
        assert_eq!(out[..2], [-1.0; 2], "hidden by rounding");
        assert!((out[2] - 16.0).abs() < 0.1 && (out[3] - 16.0).abs() < 0.1, "{out:?}");
    }
    let bytes: Vec<u8> = [f32::INFINITY; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    let weight = WeightBytes::new(&bytes, DType::F32, 1, 4).unwrap();
    assert!(PackedLinearQ8::pack(weight, None, &Device::Cpu).is_err());
}

#[test]
fn a_weight_takes_eight_and_a_half_bits() {
    let linear = packed(&vec![1.0; 64 * 256], None, 256);
    assert_eq!(linear.bytes() * 8, 64 * 256 * 17 / 2);
    assert_eq!((linear.in_features(), linear.out_features()), (256, 64));
    let x = from_host(vec![0.0; 8], (2, 4)).unwrap();
    assert!(matches!(linear.forward(&x), Err(KernelError::Shape { operand: "x", .. })));
}
