//! The ops without sums over rows or positions, on every machine: writes, rotation, norm, gate, look-up.

use candle_core::Tensor;

use super::{Machine, assert_close, on_machines, rounded, step_of};
use crate::launch::ElementType;
use crate::ops::testing::Random;
use crate::ops::{embedding, kv_write, rms_norm, rope, silu_mul};
use crate::tensor::from_host;
use crate::{KvFormat, KvGeometry};

const ELEMENTS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

fn floats_of(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn keys_and_values_land_in_their_slots_and_nowhere_else() {
    on_machines(|machine| {
        for element in ELEMENTS {
            let format = KvFormat::F32;
            let geometry =
                KvGeometry { blocks: 5, block_tokens: 16, kv_heads: 3, head_dim: 20, format };
            let slots = [79_i64, 0, 17, -1, 18];
            let (rows, width) = (slots.len(), 60);
            let mut random = Random::new(1);
            let k = rounded(element, &random.floats(rows * width));
            let v = rounded(element, &random.floats(rows * width));
            let nothing = vec![f32::NAN; 5 * 16 * width];
            let [new_k, new_v, keys, values] =
                [&k, &v, &nothing, &nothing].map(|floats| machine.upload_as(element, floats));
            let of_rows = machine.upload(&slots);
            let memory = kv_write::device::Memory {
                k: new_k.ptr(),
                v: new_v.ptr(),
                keys: keys.ptr(),
                values: values.ptr(),
                slots: of_rows.ptr(),
            };
            // SAFETY: buffers of the sizes of the geometry, slots within it.
            unsafe { kv_write::device::write(machine, &geometry, rows, element, memory) }.unwrap();
            let keys = machine.download_as(element, &keys);
            let values = machine.download_as(element, &values);
            let mut written = 0;
            for at in 0..keys.len() {
                let (block, head) = (at / (16 * width), at / (16 * 20) % 3);
                let inside = at % (16 * 20);
                let of = |token: usize, d: usize, source: &[f32]| {
                    let slot = (block * 16 + token) as i64;
                    let row = slots.iter().position(|s| *s == slot)?;
                    Some(source[row * width + head * 20 + d])
                };
                for (found, expected) in [
                    (keys[at], of(inside / 20, inside % 20, &k)),
                    (values[at], of(inside % 16, inside / 16, &v)),
                ] {
                    assert_eq!(found.is_nan(), expected.is_none());
                    if let Some(expected) = expected {
                        assert_eq!(found, expected);
                        written += 1;
                    }
                }
            }
            assert_eq!(written, 4 * width * 2);
        }
    });
}

#[test]
fn rotation_is_the_specification() {
    on_machines(|machine| {
        for (rows, heads, head_dim) in [(1, 1, 2), (3, 2, 16), (9, 5, 80), (40, 4, 64)] {
            let config = rope::RopeConfig {
                head_dim,
                rotary_dim: head_dim,
                theta: 10_000.0,
                scaling: rope::RopeScaling::None,
            };
            let mut random = Random::new(2);
            let positions: Vec<u32> = (0..rows).map(|_| random.below(4000) as u32).collect();
            let angles = rope::RopeTable::new(&config).unwrap().angles(&positions);
            for element in ELEMENTS {
                let x = rounded(element, &random.floats(rows * heads * head_dim));
                let buffer = machine.upload_as(element, &x);
                let (cos, sin) = (machine.upload(&angles.cos), machine.upload(&angles.sin));
                let memory = (buffer.ptr(), cos.ptr(), sin.ptr());
                let sizes = (rows, heads, head_dim / 2);
                // SAFETY: buffers of these sizes.
                unsafe { rope::device::rotate(machine, memory, sizes, element) }.unwrap();
                let x = from_host(x, (rows, heads * head_dim)).unwrap();
                let expected = floats_of(&rope::rope(x, &angles).unwrap());
                let found = machine.download_as(element, &buffer);
                assert_close(&found, &expected, step_of(element), "rope");
            }
        }
    });
}

/// Output, and the running sum if there is one.
fn norm_on(
    machine: &Machine,
    (x, weight): (&[f32], &[f32]),
    sum: Option<&[f32]>,
    element: ElementType,
) -> (Vec<f32>, Vec<f32>) {
    let (width, rows) = (weight.len(), x.len() / weight.len());
    let [source, factor] = [x, weight].map(|floats| machine.upload_as(element, floats));
    let out = machine.upload_as(element, &vec![f32::NAN; x.len()]);
    let kept = sum.map(|sum| machine.upload_as(element, sum));
    let memory = rms_norm::device::Memory {
        x: source.ptr(),
        sum: kept.as_ref().map(super::Buffer::ptr),
        weight: factor.ptr(),
        out: out.ptr(),
    };
    // SAFETY: buffers of these sizes.
    unsafe { rms_norm::device::norm(machine, memory, (rows, width), 1e-5, element) }.unwrap();
    let kept = kept.map(|kept| machine.download_as(element, &kept)).unwrap_or_default();
    (machine.download_as(element, &out), kept)
}

#[test]
fn norm_is_the_specification_with_and_without_a_running_sum() {
    on_machines(|machine| {
        for (rows, width) in [(1, 1), (3, 15), (2, 64), (5, 100), (2, 2048), (1, 4100)] {
            for element in ELEMENTS {
                let mut random = Random::new(3);
                let x = rounded(element, &random.floats(rows * width));
                let before = rounded(element, &random.floats(rows * width));
                let weight = rounded(element, &random.floats(width));
                let expected = |x: &[f32]| {
                    let x = from_host(x.to_vec(), (rows, width)).unwrap();
                    let weight = from_host(weight.clone(), width).unwrap();
                    floats_of(&rms_norm::rms_norm(&x, &weight, 1e-5).unwrap())
                };
                let tolerance = step_of(element).max(1e-5);
                let (found, _) = norm_on(machine, (&x, &weight), None, element);
                assert_close(&found, &expected(&x), tolerance, "norm");
                let (found, kept) = norm_on(machine, (&x, &weight), Some(&before), element);
                let sum: Vec<f32> = x.iter().zip(&before).map(|(x, y)| x + y).collect();
                assert_eq!(kept, rounded(element, &sum));
                assert_close(&found, &expected(&kept), tolerance, "norm of a sum");
                // A row alone has the bits that it has in company.
                let last = (rows - 1) * width..;
                let (alone, _) = norm_on(machine, (&x[last.clone()], &weight), None, element);
                let (all, _) = norm_on(machine, (&x, &weight), None, element);
                assert_eq!(alone, all[last]);
            }
        }
    });
}

#[test]
fn gate_is_the_specification() {
    on_machines(|machine| {
        for len in [0, 1, 255, 256, 257, 3000] {
            for element in ELEMENTS {
                let mut random = Random::new(4);
                let gate: Vec<f32> = random.floats(len).iter().map(|v| v * 120.0).collect();
                let (gate, up) = (rounded(element, &gate), rounded(element, &random.floats(len)));
                let [left, right] = [&gate, &up].map(|floats| machine.upload_as(element, floats));
                let out = machine.upload_as(element, &vec![f32::NAN; len]);
                let memory = (left.ptr(), right.ptr(), out.ptr());
                // SAFETY: three runs of `len` elements.
                unsafe { silu_mul::device::gate(machine, memory, len, element) }.unwrap();
                let tensor = |floats: Vec<f32>| from_host(floats, len).unwrap();
                let expected = silu_mul::silu_mul(&tensor(gate), &tensor(up)).unwrap();
                let found = machine.download_as(element, &out);
                assert_close(&found, &floats_of(&expected), step_of(element).max(1e-6), "silu");
            }
        }
    });
}

#[test]
fn looked_up_rows_are_those_of_the_table() {
    on_machines(|machine| {
        for (width, ids) in [(7, vec![36_u32, 0, 17, 17]), (512, vec![3]), (4, vec![])] {
            for element in ELEMENTS {
                let table = rounded(element, &Random::new(5).floats(37 * width));
                let buffer = machine.upload_as(element, &table);
                let of_rows = machine.upload(&ids);
                let out = machine.upload_as(element, &vec![f32::NAN; ids.len() * width]);
                let memory = (buffer.ptr(), of_rows.ptr(), out.ptr());
                let sizes = (ids.len(), width);
                // SAFETY: buffers of these sizes, ids within the table.
                unsafe { embedding::device::gather(machine, memory, sizes, element) }.unwrap();
                let rows = ids.iter().map(|id| &table[*id as usize * width..][..width]);
                assert_eq!(machine.download_as(element, &out), rows.collect::<Vec<_>>().concat());
            }
        }
    });
}
