//! Memory whose beginning lies on a cache line, for data that stays: weights and KV blocks.
//!
//! A vector of 64 bytes that begins elsewhere touches two cache lines on every load.

/// Floats in a vector and in a cache line.
pub(crate) const LANES: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// A fixed number of floats beginning on a cache line.
pub(crate) struct AlignedFloats {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedFloats {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LANES]); len.div_ceil(LANES)], len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` around floats, its size is its alignment, so the lines are
        // `lines.len() * LANES >= len` floats without padding, borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }
}

impl std::fmt::Debug for AlignedFloats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedFloats").field("len", &self.len).finish()
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct ByteLine([u8; 64]);

/// A fixed number of bytes beginning on a cache line.
pub(crate) struct AlignedBytes {
    lines: Vec<ByteLine>,
    len: usize,
}

impl AlignedBytes {
    /// `len` times `value`.
    pub(crate) fn filled(len: usize, value: u8) -> Self {
        Self { lines: vec![ByteLine([value; 64]); len.div_ceil(64)], len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `ByteLine` is `repr(C)` around bytes, its size is its alignment, so the lines are
        // `lines.len() * 64 >= len` bytes without padding, borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<ByteLine>()
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBytes").field("len", &self.len).finish()
    }
}
