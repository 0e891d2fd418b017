//! Rotary position embedding, in the layout of transformers: the first half of a head, or of the part
//! of it that is turned at all, is turned against the second half.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(any(feature = "cuda", test))]
pub(crate) mod device;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
mod table;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use super::ELEMENTS_PER_TASK;
use crate::KernelError;
use crate::dispatch::{Level, level};
use crate::pool::for_chunks;
use crate::simd::vector_levels;
use crate::tensor::{Place, place, rows};

pub use table::{RopeAngles, RopeConfig, RopeScaling, RopeTable};

const OP: &str = "rope";

vector_levels! {
    fn rotate(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32])
}

/// Turns each head of `x` by the angle of its row, in place: `[rows, heads * head_dim]`.
///
/// # Errors
/// Another number of rows than `angles` has, a width that is not whole heads, another type than
/// f32, or a device this build can't use.
pub fn rope(x: Tensor, angles: &RopeAngles) -> Result<Tensor, KernelError> {
    let width = x.dims().last().copied().unwrap_or(0);
    let found = rows(OP, "x", &x, width)?;
    if found != angles.rows || width % angles.head_dim != 0 {
        let expected = [angles.rows, width.next_multiple_of(angles.head_dim)];
        return Err(crate::tensor::shape_error(OP, "x", &expected, x.dims()));
    }
    if place(OP, x.device())? == Place::Cuda {
        return crate::on_device::rope(x, (angles, &angles.memo));
    }
    x.inplace_op1(&Rotate(angles))?;
    Ok(x)
}

struct Rotate<'a>(&'a RopeAngles);

impl InplaceOp1 for Rotate<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let x = crate::tensor::floats_mut(OP, storage, layout)?;
        on_rows(level(), x, self.0);
        Ok(())
    }
}

fn on_rows(level: Level, x: &mut [f32], angles: &RopeAngles) {
    if angles.rows == 0 || x.is_empty() {
        return;
    }
    let (width, half) = (x.len() / angles.rows, angles.half);
    let task_rows = ELEMENTS_PER_TASK.div_ceil(width);
    for_chunks(x, task_rows * width, |task, x| {
        for (offset, x) in x.chunks_exact_mut(width).enumerate() {
            let row = task * task_rows + offset;
            let angle = row * half..(row + 1) * half;
            run(level, x, angles.head_dim, &angles.cos[angle.clone()], &angles.sin[angle]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, on_levels};
    use crate::tensor::from_host;

    fn table(head_dim: usize, rotary_dim: usize) -> RopeTable {
        let scaling = RopeScaling::None;
        RopeTable::new(&RopeConfig { head_dim, rotary_dim, theta: 10_000.0, scaling }).unwrap()
    }

    #[test]
    fn vectors_agree_with_scalar() {
        let mut random = Random::new(7);
        for (rows, heads, head_dim, rotary_dim) in [
            (1, 1, 2, 2),
            (3, 2, 16, 4),
            (2, 3, 34, 34),
            (5, 4, 64, 48),
            (9, 1, 80, 80),
            (70, 8, 64, 64),
        ] {
            let positions: Vec<u32> = (0..rows).map(|_| random.below(5000) as u32).collect();
            let angles = table(head_dim, rotary_dim).angles(&positions);
            let x = random.floats(rows * heads * head_dim);
            let out = on_levels(|level| {
                let mut x = x.clone();
                on_rows(level, &mut x, &angles);
                x
            });
            for (before, after) in x.chunks(head_dim).zip(out.chunks(head_dim)) {
                assert_eq!(before[rotary_dim..], after[rotary_dim..]);
            }
        }
    }

    #[test]
    fn turns_pairs_by_position() {
        let x = from_host(vec![1.0, 0.0, 0.5, 2.0], (1, 4)).unwrap();
        let out = rope(x, &table(4, 4).angles(&[3])).unwrap().to_vec2::<f32>().unwrap();
        let (slow, fast) = (3.0_f32 / 100.0, 3.0_f32);
        let expected = [
            fast.cos() - 0.5 * fast.sin(),
            -2.0 * slow.sin(),
            0.5 * fast.cos() + fast.sin(),
            2.0 * slow.cos(),
        ];
        for (found, expected) in out[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let angles = table(4, 4).angles(&[0, 1]);
        for shape in [(1, 4), (2, 6), (3, 4)] {
            let x = from_host(vec![0.0; shape.0 * shape.1], shape).unwrap();
            assert!(matches!(rope(x, &angles), Err(KernelError::Shape { .. })));
        }
    }
}
