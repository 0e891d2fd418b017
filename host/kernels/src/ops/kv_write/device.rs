//! The launch of the write of keys and values.

use super::KvGeometry;
use crate::KernelError;
use crate::launch::{Args, ElementType, Ptr, Queue, launch_elements};

const OP: &str = "kv_write";

/// `KvWriteArgs` of `kv_write.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct KvWriteArgs {
    k: Ptr,
    v: Ptr,
    keys: Ptr,
    values: Ptr,
    slots: Ptr,
    elements: i64,
    kv_heads: i32,
    dim: i32,
    block_tokens: i32,
    unused: i32,
}

// SAFETY: five pointers, a 64-bit and four 32-bit integers, as in `kv_write.cu`.
unsafe impl Args for KvWriteArgs {}

/// Addresses of `k` and `v`, `[rows][kv_heads][head_dim]`, of the blocks, and of a slot per row as i64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) k: Ptr,
    pub(crate) v: Ptr,
    pub(crate) keys: Ptr,
    pub(crate) values: Ptr,
    pub(crate) slots: Ptr,
}

/// Writes `rows` rows.
///
/// # Safety
/// As [`Queue::launch`]: memory of the sizes that `geometry` and `rows` say, slots within the blocks.
pub(crate) unsafe fn write(
    queue: &impl Queue,
    geometry: &KvGeometry,
    rows: usize,
    element: ElementType,
    memory: Memory,
) -> Result<(), KernelError> {
    let elements = rows * geometry.kv_heads * geometry.head_dim;
    let Memory { k, v, keys, values, slots } = memory;
    let args = KvWriteArgs {
        k,
        v,
        keys,
        values,
        slots,
        elements: elements as i64,
        // A geometry that was allocated fits 32 bits, and blocks of 2^31 positions do not exist.
        kv_heads: crate::launch::narrow(OP, "kv_heads", geometry.kv_heads)?,
        dim: crate::launch::narrow(OP, "head_dim", geometry.head_dim)?,
        block_tokens: crate::launch::narrow(OP, "block_tokens", geometry.block_tokens)?,
        unused: 0,
    };
    // SAFETY: the caller's promise; `elements` are those of `k` and `v`.
    unsafe { launch_elements(queue, OP, element, elements, &args) }
}
