//! Products against plain arithmetic, every instruction set against scalar, and what is refused.

use super::group::products;
use super::*;
use crate::dispatch::level;
use crate::ops::columns::Output;
use crate::ops::testing::{Random, assert_same_bits, on_levels, weight_of};
use crate::tensor::from_host;
use crate::{LoraPair, LoraSegment, Pool};

const FORMATS: [WeightFormat; 7] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4K,
    WeightFormat::Q6K,
];

/// Floats packed in a format.
fn packed(
    values: &[f32],
    bias: Option<&[f32]>,
    depth: usize,
    format: WeightFormat,
) -> PackedLinear {
    let source = if format.is_quantized() { WeightFormat::F32 } else { format };
    let bytes = weight_of(values, source);
    let weight = WeightBytes::new(&bytes, source, values.len() / depth, depth).unwrap();
    PackedLinear::pack(weight, bias, Some(format), &Device::Cpu).unwrap()
}

fn rows_at(level: Level, linear: &PackedLinear, x: &[f32]) -> Vec<f32> {
    let (depth, width) = (linear.in_features, linear.out_features);
    let rows = x.len() / depth;
    let tensor = from_host(x.to_vec(), (rows, depth)).unwrap();
    let mut out = vec![f32::NAN; rows * width];
    let members = [GroupMember { linear, segments: vec![] }];
    let mut outputs = [Output { floats: &mut out, width }];
    products(level, (&LinearInput::new(&tensor), x, rows), (&members, &[]), &mut outputs);
    out
}

#[test]
fn vectors_agree_with_scalar_and_rows_with_themselves_alone() {
    let mut random = Random::new(4);
    for format in FORMATS {
        let rows = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 97];
        for (index, rows) in rows.into_iter().enumerate() {
            for (depth, width) in [(1, 1), (31, 17), (64, 16), (300, 31), (257, 161), (256, 70)] {
                let (weight, bias) = (random.floats(depth * width), random.floats(width));
                let linear = packed(&weight, (index % 2 == 0).then_some(&bias), depth, format);
                let x = random.floats(rows * depth);
                let out = on_levels(|level| rows_at(level, &linear, &x));
                let row = random.below(rows);
                let alone = rows_at(level(), &linear, &x[row * depth..(row + 1) * depth]);
                assert_same_bits(&alone, &out[row * width..(row + 1) * width]);
            }
        }
    }
}

#[test]
fn is_the_product_of_the_weight_that_is_read_back() {
    let mut random = Random::new(15);
    let (rows, depth, width) = (3, 300, 33);
    let (x, values) = (random.floats(rows * depth), random.floats(width * depth));
    let bias = random.floats(width);
    for format in FORMATS {
        let linear = packed(&values, Some(&bias), depth, format);
        let tensor = from_host(x.clone(), (rows, depth)).unwrap();
        let out: Vec<Vec<f32>> = linear.forward(&tensor).unwrap().to_vec2().unwrap();
        // Activations in eight bits are off by up to half of 1/127 each, in random directions.
        let bound = match format.is_quantized() {
            true => 4.0 * (depth as f64).sqrt() * 0.5 / 127.0 / 3.0,
            false => 1e-4,
        };
        let mut row = vec![0.0; depth];
        let mut worst = 0.0_f32;
        for output in 0..width {
            linear.read_row(output, &mut row);
            let theirs = &values[output * depth..(output + 1) * depth];
            worst = row.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            for (x, out) in x.chunks(depth).zip(&out) {
                let product = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let expect: f64 = product.sum::<f64>() + f64::from(bias[output]);
                let found = f64::from(out[output]);
                assert!((expect - found).abs() < bound, "{format:?}: {expect} against {found}");
            }
        }
        let off_by = match format {
            WeightFormat::F32 => 0.0,
            WeightFormat::F16 => 0.0003,
            WeightFormat::Bf16 | WeightFormat::Q8_0 => 0.0045,
            WeightFormat::Q6K => 0.035,
            _ => 0.16,
        };
        assert!(worst <= off_by, "{format:?}: weights off by {worst}");
    }
}

#[test]
fn whole_numbers_are_exact() {
    // Scales of one: weights and activations up to 127 are their own quants.
    let (depth, width) = (64, 20);
    let mut random = Random::new(16);
    let mut whole = |count: usize| -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| random.below(255) as f32 - 127.0).collect();
        values.chunks_mut(32).for_each(|block| block[0] = 127.0);
        values
    };
    let (x, weight) = (whole(2 * depth), whole(width * depth));
    let linear = packed(&weight, None, depth, WeightFormat::Q8_0);
    let out = on_levels(|level| rows_at(level, &linear, &x));
    for (row, x) in x.chunks(depth).enumerate() {
        for (output, weight) in weight.chunks(depth).enumerate() {
            let expect: f32 = weight.iter().zip(x).map(|(w, x)| w * x).sum();
            assert_eq!(out[row * width + output], expect);
        }
    }
}

#[test]
fn zeros_and_what_is_no_number() {
    for format in FORMATS {
        let linear = packed(&[0.0; 64], None, 32, format);
        assert_eq!(rows_at(Level::Scalar, &linear, &[0.0; 32]), [0.0; 2]);
        let linear = packed(&[0.5; 64], None, 32, format);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 64];
            x[3] = bad;
            let out = on_levels(|level| {
                // A NaN's bits are the CPU's own.
                let out = rows_at(level, &linear, &x);
                out.into_iter().map(|value| if value.is_finite() { value } else { -1.0 }).collect()
            });
            assert_eq!(out[..2], [-1.0; 2], "hidden by rounding");
            assert!((out[2] - 16.0).abs() < 0.1 && (out[3] - 16.0).abs() < 0.1, "{out:?}");
        }
    }
    for value in [f32::INFINITY, f32::NAN, 3e38] {
        let bytes = weight_of(&[value; 4], WeightFormat::F32);
        let weight = WeightBytes::new(&bytes, WeightFormat::F32, 1, 4).unwrap();
        let pack = |format| PackedLinear::pack(weight, None, Some(format), &Device::Cpu);
        for format in FORMATS.into_iter().filter(|format| format.is_quantized()) {
            assert!(pack(format).is_err(), "{value} {format:?}");
        }
    }
}

#[test]
fn weights_take_the_bytes_that_they_should() {
    for (format, bits) in [
        (WeightFormat::F32, 32.0),
        (WeightFormat::F16, 16.0),
        (WeightFormat::Bf16, 16.0),
        (WeightFormat::Q8_0, 8.5),
        (WeightFormat::Q4_0, 4.5),
        (WeightFormat::Q4K, 4.625),
        (WeightFormat::Q6K, 6.5625),
    ] {
        let linear = packed(&vec![1.0; 64 * 512], None, 512, format);
        let held = linear.bytes() as f64 * 8.0 / (64.0 * 512.0);
        assert_eq!(held, bits, "{format:?}");
        assert_eq!((linear.in_features(), linear.out_features()), (512, 64));
    }
}

/// Members of every format with and without adapters, on one pool and on none, in one call and alone.
#[test]
fn a_group_is_its_members_alone_and_its_adapters_added() {
    let mut random = Random::new(17);
    let (rows, depth) = (21, 300);
    let widths = [160, 33, 16, 500, 7, 64, 96];
    let x = random.floats(rows * depth);
    let tensor = from_host(x.clone(), (rows, depth)).unwrap();
    let linears: Vec<PackedLinear> = FORMATS
        .into_iter()
        .zip(widths)
        .map(|(format, width)| packed(&random.floats(depth * width), None, depth, format))
        .collect();
    let pairs: Vec<Vec<LoraPair>> = widths
        .iter()
        .map(|width| [5, 16].map(|rank| LoraPair::random(&mut random, depth, rank, *width)).into())
        .collect();
    let members: Vec<GroupMember<'_>> = linears
        .iter()
        .zip(&pairs)
        .enumerate()
        .map(|(index, (linear, pairs))| {
            let first = LoraSegment { row_start: 1, rows: 1, pair: &pairs[0] };
            let second = LoraSegment { row_start: 5, rows: 9, pair: &pairs[1] };
            let segments = if index == 2 { vec![] } else { vec![first, second] };
            GroupMember { linear, segments }
        })
        .collect();
    let alone = linear_group(&LinearInput::new(&tensor), &members, &[]).unwrap();
    let mut pool = Pool::new(3).unwrap();
    let shared = pool.install(|| linear_group(&LinearInput::new(&tensor), &members, &[]).unwrap());
    for ((member, together), shared) in members.iter().zip(alone).zip(shared) {
        let base = member.linear.forward(&tensor).unwrap();
        let hidden = crate::lora_shrink(&tensor, &member.segments).unwrap();
        let expected = crate::lora_expand(base, &hidden, &member.segments).unwrap();
        let floats = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_same_bits(&floats(&together), &floats(&expected));
        assert_same_bits(&floats(&shared), &floats(&expected));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let linear = packed(&[1.0; 6], None, 3, WeightFormat::F32);
    let x = from_host(vec![0.0; 8], (2, 4)).unwrap();
    assert!(matches!(linear.forward(&x), Err(KernelError::Shape { operand: "x", .. })));
    let bytes = [0; 24];
    let weight = WeightBytes::new(&bytes, WeightFormat::F32, 2, 3).unwrap();
    assert!(PackedLinear::pack(weight, Some(&[0.0; 3]), None, &Device::Cpu).is_err());
    assert!(PackedLinear::pack(weight, None, Some(WeightFormat::F16), &Device::Cpu).is_err());
    let none = WeightBytes::new(&[], WeightFormat::F32, 0, 3).unwrap();
    assert!(PackedLinear::pack(none, None, None, &Device::Cpu).is_err());
    let blocks = WeightBytes::new(&[0; 34], WeightFormat::Q8_0, 1, 32).unwrap();
    assert!(PackedLinear::pack(blocks, None, Some(WeightFormat::Q4_0), &Device::Cpu).is_err());
    assert!(PackedLinear::pack(blocks, None, None, &Device::Cpu).is_ok());
    let no_rows = from_host(vec![], (0, 3)).unwrap();
    assert_eq!(linear.forward(&no_rows).unwrap().dims(), [0, 2]);
    let pair = LoraPair::of_floats(&[1.0; 6], &[1.0; 4], (2, 3, 2), 1.0);
    let x = from_host(vec![0.0; 6], (2, 3)).unwrap();
    let group = |row_start: usize| {
        let segments = vec![LoraSegment { row_start, rows: 2, pair: &pair }];
        linear_group(&LinearInput::new(&x), &[GroupMember { linear: &linear, segments }], &[])
            .is_ok()
    };
    assert!(group(0) && !group(1));
}
