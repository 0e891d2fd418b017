//! How a kernel is launched, on a device or on the emulated machine of the tests: a name, a grid, and
//! one structure of arguments.
//!
//! What lies here knows neither a driver nor a tensor, so that grids and work lists are tested without
//! either.

use crate::KernelError;

/// Where memory of a device begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Ptr(pub(crate) u64);

impl Ptr {
    /// `bytes` further.
    pub(crate) fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Bytes that the widest access of a thread must lie on.
const ACCESS_BYTES: u64 = 16;

/// Checks that runs of `width` elements that begin at `pointer` can be read sixteen bytes at a time
/// where kernels will: if the width is whole eights.
pub(crate) fn check_aligned(
    op: &'static str,
    pointer: Ptr,
    width: usize,
) -> Result<(), KernelError> {
    if width.is_multiple_of(8) && !pointer.0.is_multiple_of(ACCESS_BYTES) {
        return Err(KernelError::Size { op, what: "operand that does not begin on 16 bytes" });
    }
    Ok(())
}

/// Blocks, threads per block, and bytes of shared memory per block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 2],
    pub(crate) threads: u32,
    pub(crate) shared: u32,
}

/// Largest second dimension of a grid.
const BLOCKS_Y_MAX: usize = 65_535;

impl Grid {
    /// A grid, or nothing if it has no blocks.
    ///
    /// # Errors
    /// More blocks than a device takes.
    pub(crate) fn new(
        op: &'static str,
        blocks: [usize; 2],
        threads: u32,
        shared: usize,
    ) -> Result<Option<Self>, KernelError> {
        let bounds = [i32::MAX as usize, BLOCKS_Y_MAX];
        for (value, bound) in blocks.into_iter().zip(bounds) {
            if value > bound {
                return Err(KernelError::Bound { op, what: "blocks of a launch", value, bound });
            }
        }
        if blocks.contains(&0) {
            return Ok(None);
        }
        let blocks = blocks.map(|count| count as u32);
        let shared =
            u32::try_from(shared).map_err(|_| KernelError::Size { op, what: "shared memory" })?;
        Ok(Some(Self { blocks, threads, shared }))
    }
}

/// Arguments of a kernel, laid out as its source has them.
///
/// # Safety
/// The type must be `repr(C)` with the fields of the C++ structure of the same name, and no padding
/// that is read.
pub(crate) unsafe trait Args: Copy {}

/// Where launches go, one after another.
pub(crate) trait Queue {
    /// Queues one kernel.
    ///
    /// # Safety
    /// Every pointer in `args` must be valid for what the kernel `kernel` does with it on that grid,
    /// until the kernel has run.
    unsafe fn launch<A: Args>(&self, kernel: &str, grid: Grid, args: &A)
    -> Result<(), KernelError>;
}

/// Threads of a block where each thread has one element.
const ELEMENT_THREADS: u32 = 256;

/// Queues a kernel that has a thread per element and is named by op and type.
///
/// # Safety
/// As [`Queue::launch`].
pub(crate) unsafe fn launch_elements<A: Args>(
    queue: &impl Queue,
    op: &'static str,
    element: ElementType,
    elements: usize,
    args: &A,
) -> Result<(), KernelError> {
    let blocks = elements.div_ceil(ELEMENT_THREADS as usize);
    match Grid::new(op, [blocks, 1], ELEMENT_THREADS, 0)? {
        // SAFETY: the caller's promise.
        Some(grid) => unsafe { queue.launch(&format!("{op}_{}", element.suffix()), grid, args) },
        None => Ok(()),
    }
}

/// Types that kernels compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    F32,
    F16,
    Bf16,
}

impl ElementType {
    /// As names of kernels end.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// A size as kernels count it.
///
/// # Errors
/// One that does not fit 31 bits.
pub(crate) fn narrow(
    op: &'static str,
    what: &'static str,
    value: usize,
) -> Result<i32, KernelError> {
    let bound = i32::MAX as usize;
    i32::try_from(value).map_err(|_| KernelError::Bound { op, what, value, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_bounded() {
        let check = |blocks| Grid::new("op", blocks, 32, 0);
        assert!(check([0, 4]).unwrap().is_none());
        assert_eq!(check([3, 65_535]).unwrap().unwrap().blocks, [3, 65_535]);
        assert!(check([3, 65_536]).is_err());
        assert!(check([1 << 31, 1]).is_err());
    }

    #[test]
    fn only_wide_accesses_need_alignment() {
        assert!(check_aligned("op", Ptr(32), 64).is_ok());
        assert!(check_aligned("op", Ptr(36), 64).is_err());
        assert!(check_aligned("op", Ptr(36), 63).is_ok());
    }
}
