//! The emulated machine: host memory, kernels built by the C++ compiler, see `simt/`.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use simt as _;

use crate::KernelError;
use crate::launch::{Args, Grid, Ptr, Queue};

unsafe extern "C" {
    fn simt_launch(
        name: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        shared: usize,
        args: *const c_void,
        args_bytes: usize,
        backwards: c_int,
    ) -> c_int;
}

pub(crate) struct Emulator {
    /// Whether threads and blocks run from the last to the first.
    pub(crate) backwards: bool,
}

impl Queue for Emulator {
    unsafe fn launch<A: Args>(
        &self,
        kernel: &str,
        grid: Grid,
        args: &A,
    ) -> Result<(), KernelError> {
        let name = CString::new(kernel).expect("no zero byte");
        // SAFETY: `args` are as large as the kernel's, which is checked there; the caller promises that
        // pointers in them are valid.
        let status = unsafe {
            simt_launch(
                name.as_ptr(),
                grid.blocks.as_ptr(),
                grid.threads,
                grid.shared as usize,
                std::ptr::from_ref(args).cast(),
                size_of::<A>(),
                c_int::from(self.backwards),
            )
        };
        assert_eq!(status, 0, "{kernel}: no such kernel (1), other arguments (2) or threads (3)");
        Ok(())
    }
}

/// Bytes around a buffer that nothing may write; as floats of any width, NaN.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xff;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Memory between two guards.
pub(crate) struct Memory {
    lines: std::cell::UnsafeCell<Vec<Line>>,
    len: usize,
}

impl Memory {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let lines = bytes.len().div_ceil(64) + 2 * GUARD / 64;
        let mut lines = vec![Line([GUARD_BYTE; 64]); lines];
        // SAFETY: the lines hold a guard, then at least `bytes.len()` bytes.
        unsafe {
            let start = lines.as_mut_ptr().cast::<u8>().add(GUARD);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        }
        Self { lines: lines.into(), len: bytes.len() }
    }

    pub(crate) fn ptr(&self) -> Ptr {
        // SAFETY: no reference to the lines is held while kernels write through this address.
        let start = unsafe { (*self.lines.get()).as_mut_ptr() };
        Ptr(start as u64 + GUARD as u64)
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        // SAFETY: kernels run to their end inside `launch`, so nothing writes now.
        let lines = unsafe { &*self.lines.get() };
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.0).collect();
        let (before, rest) = bytes.split_at(GUARD);
        let (inside, after) = rest.split_at(self.len);
        let intact = before.iter().chain(after).all(|byte| *byte == GUARD_BYTE);
        assert!(intact, "a kernel wrote outside its {} bytes", self.len);
        inside.to_vec()
    }
}
