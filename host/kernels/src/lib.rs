//! The arithmetic of Mortise: each op a safe function that checks its operands, in front of a scalar
//! specification and vector bodies chosen at run time.
//!
//! Every output element of every op has one order of reduction, which depends neither on the other
//! rows of the call, nor on how a prompt was cut into chunks, nor on the number of threads, nor on
//! the CPU: the same inputs give the same bits.
//!
//! Activations are candle tensors, f32 `[rows, width]`. What stays (weights, KV blocks) is held in
//! layouts of our own. This crate never knows what a model, an adapter or a request is.

mod aligned;
mod collective;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda_disabled.rs"]
mod cuda;
pub mod dispatch;
mod elements;
mod error;
mod ggml;
#[cfg(any(feature = "cuda", test))]
mod launch;
#[cfg(feature = "cuda")]
mod on_device;
#[cfg(not(feature = "cuda"))]
#[path = "on_device_disabled.rs"]
mod on_device;
pub mod ops;
mod pool;
mod prefetch;
mod simd;
mod tensor;
#[cfg(test)]
mod tests;
mod weight;

pub use collective::{Communicator, ThreadGroup, nccl_group};
pub use cuda::{device as cuda_device, device_at as cuda_device_at};
pub use error::KernelError;
pub use ops::add::add;
pub use ops::embedding::Embedding;
pub use ops::expert_combine::expert_combine;
pub use ops::expert_route::{Routing, RoutingRule, expert_route};
pub use ops::gelu_mul::gelu_mul;
pub use ops::kv_write::{KvBlocks, KvFormat, KvGeometry, PagedPlan, PagedSpan, kv_write};
pub use ops::linear::{GroupMember, LinearInput, PackedLinear, linear_group};
pub use ops::lora_expand::lora_expand;
pub use ops::lora_shrink::{LoraPair, LoraSegment, PairCut, lora_shrink};
pub use ops::paged_attention::{AttentionShape, has_device_kernel, paged_attention};
pub use ops::rms_norm::rms_norm;
pub use ops::rope::{RopeAngles, RopeConfig, RopeScaling, RopeTable, rope};
pub use ops::sample::{BadLogit, LogitRows, NOT_FINITE, SampleParams, SampleRow, sample};
pub use ops::silu_mul::silu_mul;
pub use ops::softcap::softcap;
pub use pool::{Pool, THREADS_MAX, for_tasks};
pub use weight::{WeightBytes, WeightFormat};
