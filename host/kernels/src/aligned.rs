//! Memory whose beginning lies on a cache line, for data that stays: weights and KV blocks.
//!
//! A vector of 64 bytes that begins elsewhere touches two cache lines on every load.

/// Floats in a vector and in a cache line.
pub(crate) const LANES: usize = 16;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Numbers that any bytes are one of, and that lie in a line without padding.
pub(crate) trait Plain: Copy + Send + Sync + 'static {}

impl Plain for f32 {}
impl Plain for u8 {}
impl Plain for u16 {}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// A fixed number of elements beginning on a cache line.
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    /// Elements of zero bytes.
    pub(crate) fn zeros(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).expect("callers check what they allocate");
        let lines = vec![Line([0; LINE_BYTES]); bytes.div_ceil(LINE_BYTES)];
        Self { lines, len, element: std::marker::PhantomData }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: `Line` is `repr(C)` around bytes and as aligned as a line, so the lines are at least
        // `len` elements without padding, any bytes are a `Plain`, and they are borrowed for as long as
        // `self` is.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }
}

impl<T> std::fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aligned").field("len", &self.len).finish_non_exhaustive()
    }
}
