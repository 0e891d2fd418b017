//! Asking for memory before it is needed. An adapter's part of a tile is a few kilobytes somewhere: too
//! short for the processor to see what comes next, and there is one per row.

/// Asks for the lines of `elements`, to the second cache. Changes no value.
#[cfg(target_arch = "x86_64")]
pub(crate) fn prefetch<T>(elements: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    /// Bytes of a cache line.
    const LINE_BYTES: usize = 64;
    let first = elements.as_ptr().cast::<i8>();
    for at in (0..size_of_val(elements)).step_by(LINE_BYTES) {
        // SAFETY: within the slice; and a prefetch of any address has no effect that can be seen.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(first.add(at)) };
    }
}

/// Asks for nothing.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T>(_elements: &[T]) {}
