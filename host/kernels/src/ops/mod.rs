//! One folder per op: `mod.rs` the safe entry, `scalar.rs` the specification, `simd.rs` the vector
//! body.

pub mod add;
mod columns;
mod elementwise;
pub mod embedding;
pub mod expert_combine;
pub mod expert_route;
pub mod gelu_mul;
pub mod gemv_q8;
pub mod kv_write;
pub mod linear;
pub mod lora_expand;
pub mod lora_shrink;
pub mod paged_attention;
pub mod rms_norm;
pub mod rope;
pub mod sample;
pub mod silu_mul;
pub mod softcap;

#[cfg(test)]
pub(crate) mod testing;

/// Multiply-adds below which a second thread costs more than it saves.
pub(crate) const PARALLEL_WORK_MIN: usize = 1 << 16;

/// Elements that one task of an op on single elements or rows takes.
pub(crate) const ELEMENTS_PER_TASK: usize = 1 << 12;
