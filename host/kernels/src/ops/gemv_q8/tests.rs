//! The product on every machine, against the sum in double precision.

use half::f16;

use super::device::{Blocks, ROWS_MAX, Weight, product, widen};
use crate::launch::ElementType;
use crate::ops::testing::Random;
use crate::tests::{Machine, assert_close, on_machines, rounded, step_of};

/// A Q8_0 tensor as it lies in a file.
fn file_of(random: &mut Random, outputs: usize, inputs: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..outputs * inputs / 32 {
        let scale = f16::from_f32((random.below(1000) as f32 + 1.0) / 80_000.0);
        bytes.extend(scale.to_le_bytes());
        bytes.extend((0..32).map(|_| (random.below(256) as u8).wrapping_add(128)));
    }
    bytes
}

fn dense(blocks: &Blocks) -> Vec<f32> {
    let scales = blocks.scales.iter().flat_map(|scale| [scale.to_f32(); 32]);
    blocks.quants.iter().zip(scales).map(|(quant, scale)| f32::from(*quant) * scale).collect()
}

struct OnMachine<'a> {
    machine: &'a Machine,
    quants: crate::tests::Buffer,
    scales: crate::tests::Buffer,
    bias: crate::tests::Buffer,
    sizes: (usize, usize),
}

impl<'a> OnMachine<'a> {
    fn new(machine: &'a Machine, blocks: &Blocks, bias: &[f32], sizes: (usize, usize)) -> Self {
        let (quants, scales) = (machine.upload(&blocks.quants), machine.upload(&blocks.scales));
        Self { machine, quants, scales, bias: machine.upload(bias), sizes }
    }

    fn weight(&self, with_bias: bool) -> Weight {
        let (outputs, inputs) = self.sizes;
        let (quants, scales) = (self.quants.ptr(), self.scales.ptr());
        Weight { quants, scales, bias: with_bias.then(|| self.bias.ptr()), outputs, inputs }
    }

    fn product(&self, x: &[f32], with_bias: bool, element: ElementType) -> Vec<f32> {
        let rows = x.len() / self.sizes.1;
        let x = self.machine.upload_as(element, x);
        let y = self.machine.upload_as(element, &vec![f32::NAN; rows * self.sizes.0]);
        let memory = (x.ptr(), y.ptr());
        let weight = self.weight(with_bias);
        // SAFETY: buffers of these sizes.
        unsafe { product(self.machine, &weight, memory, rows, element) }.unwrap();
        self.machine.download_as(element, &y)
    }
}

#[test]
fn is_the_product_and_a_row_is_alone() {
    on_machines(|machine| {
        for (outputs, inputs) in [(1, 32), (5, 64), (16, 512), (33, 1120)] {
            let mut random = Random::new(outputs as u64);
            let file = file_of(&mut random, outputs, inputs);
            let blocks = Blocks::of_file(&file, outputs, inputs).unwrap();
            let (weight, bias) = (dense(&blocks), random.floats(outputs));
            let placed = OnMachine::new(machine, &blocks, &bias, (outputs, inputs));
            for element in [ElementType::F32, ElementType::F16, ElementType::Bf16] {
                for rows in [1, 2, 3, 5, ROWS_MAX] {
                    let with_bias = rows % 2 == 1;
                    let x = rounded(element, &random.floats(rows * inputs));
                    let found = placed.product(&x, with_bias, element);
                    let expected = x.chunks(inputs).flat_map(|x| {
                        weight.chunks(inputs).zip(&bias).map(move |(weight, bias)| {
                            let products = x.iter().zip(weight);
                            let sum: f64 =
                                products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                            (sum + if with_bias { f64::from(*bias) } else { 0.0 }) as f32
                        })
                    });
                    let expected: Vec<f32> = expected.collect();
                    let tolerance = step_of(element).max(1e-5);
                    assert_close(&found, &expected, tolerance, &format!("{rows} {element:?}"));
                    let last = placed.product(&x[(rows - 1) * inputs..], with_bias, element);
                    assert_eq!(last, found[(rows - 1) * outputs..], "a row alone");
                }
                let out = machine.upload_as(element, &vec![f32::NAN; weight.len()]);
                // SAFETY: a buffer of the weight's size.
                unsafe { widen(machine, &placed.weight(false), out.ptr(), element) }.unwrap();
                assert_eq!(machine.download_as(element, &out), rounded(element, &weight));
            }
        }
    });
}

#[test]
fn files_that_lie_are_refused() {
    let file = file_of(&mut Random::new(1), 2, 64);
    assert!(Blocks::of_file(&file, 2, 64).is_ok());
    assert!(Blocks::of_file(&file[1..], 2, 64).is_err(), "a byte short");
    assert!(Blocks::of_file(&file, 2, 63).is_err(), "not whole blocks");
    assert!(Blocks::of_file(&[], 0, 64).is_err());
    assert!(Blocks::of_file(&file, usize::MAX, 64).is_err());
    let mut bad = file;
    bad[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    assert!(Blocks::of_file(&bad, 2, 64).is_err(), "a scale that is not finite");
}
