//! A real device, if `MORTISE_TEST_CUDA=1` asks for it.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, Device as Place};

use crate::KernelError;
use crate::cuda::DeviceQueue;
use crate::launch::{Args, Grid, Ptr, Queue};

pub(crate) struct Device {
    device: CudaDevice,
    queue: DeviceQueue,
}

/// Bytes around a buffer that nothing may write; as floats of any width, NaN.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xff;

/// Memory between two guards.
pub(crate) struct Memory {
    slice: CudaSlice<u8>,
    len: usize,
    start: Ptr,
}

/// The device that tests were asked to use. Asked for and not there is a failure, not a test passed.
pub(crate) fn asked_for() -> Option<Place> {
    let wanted = std::env::var_os("MORTISE_TEST_CUDA").is_some_and(|value| value == "1");
    wanted.then(|| Place::new_cuda(0).expect("MORTISE_TEST_CUDA=1 needs a device"))
}

impl Device {
    pub(crate) fn asked_for() -> Option<Self> {
        let Place::Cuda(device) = asked_for()? else { unreachable!("a CUDA device was asked for") };
        let queue = DeviceQueue::new(&device).expect("kernels load");
        Some(Self { device, queue })
    }

    pub(crate) fn upload(&self, bytes: &[u8]) -> Memory {
        let mut guarded = vec![GUARD_BYTE; bytes.len() + 2 * GUARD];
        guarded[GUARD..GUARD + bytes.len()].copy_from_slice(bytes);
        let slice = self.device.clone_htod(&guarded).expect("memory");
        let start = {
            let (pointer, _guard) = slice.device_ptr(self.queue.stream());
            Ptr(pointer).offset(GUARD)
        };
        Memory { slice, len: bytes.len(), start }
    }

    pub(crate) fn read(&self, memory: &Memory) -> Vec<u8> {
        let guarded = self.device.clone_dtoh(&memory.slice).expect("kernels ran");
        let (before, rest) = guarded.split_at(GUARD);
        let (inside, after) = rest.split_at(memory.len);
        let intact = before.iter().chain(after).all(|byte| *byte == GUARD_BYTE);
        assert!(intact, "a kernel wrote outside its {} bytes", memory.len);
        inside.to_vec()
    }
}

impl Queue for Device {
    unsafe fn launch<A: Args>(
        &self,
        kernel: &str,
        grid: Grid,
        args: &A,
    ) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(kernel, grid, args) }
    }
}

impl Memory {
    pub(crate) fn ptr(&self) -> Ptr {
        self.start
    }
}
