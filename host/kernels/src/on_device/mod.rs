//! The way from the ops as models call them to the device's own: what is held on a device, what of a step
//! is copied there once, and which kernels a product takes.
//!
//! Nothing here waits for the device but [`sample`], which ends a step. A build without CUDA has `on_device_disabled.rs` in its place.

mod lora;
mod weights;

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::launch::ElementType;
use crate::ops::kv_write::cuda as kv;
use crate::ops::paged_attention::cuda as attention;
use crate::ops::{rms_norm as norm, rope as turn, sample as draw, silu_mul as gate};
use crate::{
    AttentionShape, KernelError, KvFormat, KvGeometry, PagedPlan, RopeAngles, SampleParams,
};

pub(crate) use lora::add_adapters;
pub(crate) use weights::{Linear, Table, gather};

/// What was made on a device of something that does not change, made when it is first wanted.
#[derive(Default)]
pub(crate) struct Memo(OnceLock<Box<dyn Any + Send + Sync>>);

impl Memo {
    /// What was made, or is made now. One memo is for one type.
    pub(crate) fn get<T: Any + Send + Sync>(
        &self,
        make: impl FnOnce() -> Result<T, KernelError>,
    ) -> Result<&T, KernelError> {
        let made = match self.0.get() {
            Some(made) => made,
            None => {
                let made = make()?;
                self.0.get_or_init(|| Box::new(made))
            }
        };
        Ok(made.downcast_ref().expect("a memo is for one type"))
    }
}

impl Clone for Memo {
    /// Empty: it is made anew where it is wanted.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("made", &self.0.get().is_some()).finish()
    }
}

/// Keys and values of a layer.
pub(crate) type Blocks = kv::DeviceBlocks;

/// Blocks in the type that queries, keys and values are computed in.
pub(crate) fn blocks(
    geometry: KvGeometry,
    dtype: Option<DType>,
    device: &Device,
) -> Result<Blocks, KernelError> {
    let plain = match geometry.format {
        KvFormat::F32 => DType::F32,
        _ => DType::F16,
    };
    let dtype = dtype.unwrap_or(plain);
    // What attention has no code for is refused here, before there are requests.
    let (heads, scale) = (geometry.kv_heads, 1.0);
    let shape = AttentionShape { heads, window: None, scale, softcap: None };
    let element = ElementType::of("kv blocks", "blocks", dtype)?;
    crate::ops::paged_attention::step::check(&geometry, &shape, element)?;
    Blocks::new(geometry, dtype, device)
}

/// What of a plan lies on a device.
struct Planned {
    slots: kv::DeviceSlots,
    /// One for each kind of attention: layers with a window and without.
    steps: Mutex<Vec<(AttentionShape, Arc<attention::DeviceStep>)>>,
}

fn planned<'a>(
    plan: &'a PagedPlan,
    geometry: KvGeometry,
    device: &Device,
) -> Result<&'a Planned, KernelError> {
    plan.memo().get(|| {
        let slots = kv::DeviceSlots::new(plan, geometry, device)?;
        Ok(Planned { slots, steps: Mutex::default() })
    })
}

/// [`crate::kv_write`].
pub(crate) fn kv_write(
    (k, v): (&Tensor, &Tensor),
    plan: &PagedPlan,
    blocks: &mut Blocks,
) -> Result<(), KernelError> {
    let planned = planned(plan, blocks.geometry(), k.device())?;
    kv::kv_write(k, v, &planned.slots, blocks)
}

/// [`crate::paged_attention`].
pub(crate) fn paged_attention(
    q: &Tensor,
    blocks: &Blocks,
    plan: &PagedPlan,
    shape: &AttentionShape,
) -> Result<Tensor, KernelError> {
    let geometry = blocks.geometry();
    let planned = planned(plan, geometry, q.device())?;
    let step = {
        let mut steps = planned.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let found = steps.iter().find(|(known, _)| known == shape);
        match found {
            Some((_, step)) => Arc::clone(step),
            None => {
                let (dtype, device) = (q.dtype(), q.device());
                let step = attention::DeviceStep::new(plan, geometry, *shape, dtype, device)?;
                steps.push((*shape, Arc::new(step)));
                Arc::clone(&steps[steps.len() - 1].1)
            }
        }
    };
    attention::paged_attention(q, blocks, &step)
}

/// [`crate::rope`].
pub(crate) fn rope(x: Tensor, (angles, memo): (&RopeAngles, &Memo)) -> Result<Tensor, KernelError> {
    let there = memo.get(|| turn::cuda::DeviceAngles::new(angles, x.device()))?;
    turn::cuda::rope(&x, there)?;
    Ok(x)
}

/// [`crate::rms_norm`], over rows of any number of dimensions.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor, KernelError> {
    let flat = x.reshape(((), weight.elem_count()))?;
    Ok(norm::cuda::rms_norm(&flat, weight, eps)?.reshape(x.shape())?)
}

/// [`crate::silu_mul`].
pub(crate) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    gate::cuda::silu_mul(gate, up)
}

/// [`crate::gelu_mul`].
pub(crate) fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, KernelError> {
    // The library's is the approximation with a tanh.
    Ok((gate.gelu()? * up)?)
}

/// [`crate::softcap`].
pub(crate) fn softcap(x: &Tensor, cap: f32) -> Result<Tensor, KernelError> {
    let cap = f64::from(cap);
    Ok(x.affine(1.0 / cap, 0.0)?.tanh()?.affine(cap, 0.0)?)
}

/// [`crate::add`].
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor, KernelError> {
    Ok((x + y)?)
}

/// [`crate::sample`].
pub(crate) fn sample(logits: &Tensor, params: &[SampleParams]) -> Result<Vec<u32>, KernelError> {
    Ok(draw::cuda::sample(logits, params, &[])?.to_vec1()?)
}
