//! The machines that kernels are tested on: the emulated one, forwards and backwards, and a real device
//! where there is one and `MORTISE_TEST_CUDA=1` asks for it. A check is written once for all of them.
//!
//! Nothing outside tests comes here.

#[cfg(feature = "cuda")]
mod device;
#[cfg(not(feature = "cuda"))]
#[path = "device_disabled.rs"]
mod device;
mod elementwise;
mod emulator;
#[cfg(feature = "cuda")]
mod on_device;

use half::{bf16, f16};

use crate::launch::{Args, ElementType, Grid, Ptr, Queue};
use crate::ops::testing::weight_of;
use crate::{KernelError, LoraPair, WeightBytes, WeightFormat};

/// A machine with memory of its own.
pub(crate) enum Machine {
    Emulator(emulator::Emulator),
    Device(device::Device),
}

/// Memory of a machine. Reading back checks that nothing was written around it.
pub(crate) enum Buffer {
    Emulator(emulator::Memory),
    Device(device::Memory),
}

/// Runs `check` on every machine there is.
pub(crate) fn on_machines(check: impl Fn(&Machine)) {
    for backwards in [false, true] {
        check(&Machine::Emulator(emulator::Emulator { backwards }));
    }
    if let Some(device) = device::Device::asked_for() {
        check(&Machine::Device(device));
    }
}

impl Queue for Machine {
    unsafe fn launch<A: Args>(
        &self,
        kernel: &str,
        grid: Grid,
        args: &A,
    ) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Emulator(emulator) => emulator.launch(kernel, grid, args),
                Self::Device(device) => device.launch(kernel, grid, args),
            }
        }
    }
}

impl Machine {
    /// Memory with a copy of `values`.
    pub(crate) fn upload<T: Copy>(&self, values: &[T]) -> Buffer {
        // SAFETY: initialised values of a plain type, read as bytes; types under test have no padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        match self {
            Self::Emulator(_) => Buffer::Emulator(emulator::Memory::new(bytes)),
            Self::Device(device) => Buffer::Device(device.upload(bytes)),
        }
    }

    /// Memory with a copy of `floats`, rounded to `element`.
    pub(crate) fn upload_as(&self, element: ElementType, floats: &[f32]) -> Buffer {
        match element {
            ElementType::F32 => self.upload(floats),
            ElementType::F16 => {
                self.upload(&floats.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>())
            }
            ElementType::Bf16 => {
                self.upload(&floats.iter().map(|v| bf16::from_f32(*v)).collect::<Vec<_>>())
            }
        }
    }

    fn bytes_of(&self, buffer: &Buffer) -> Vec<u8> {
        match (self, buffer) {
            (Self::Emulator(_), Buffer::Emulator(memory)) => memory.read(),
            (Self::Device(device), Buffer::Device(memory)) => device.read(memory),
            _ => unreachable!("a buffer of another machine"),
        }
    }

    /// What lies in memory, as `T`.
    pub(crate) fn download<T: Copy>(&self, buffer: &Buffer) -> Vec<T> {
        let bytes = self.bytes_of(buffer);
        let elements = bytes.chunks_exact(size_of::<T>());
        // SAFETY: as many bytes as `T` has, of a plain type; read without regard to alignment.
        elements.map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() }).collect()
    }

    /// What lies in memory, widened to floats.
    pub(crate) fn download_as(&self, element: ElementType, buffer: &Buffer) -> Vec<f32> {
        match element {
            ElementType::F32 => self.download(buffer),
            ElementType::F16 => self.download::<f16>(buffer).into_iter().map(f16::to_f32).collect(),
            ElementType::Bf16 => {
                self.download::<bf16>(buffer).into_iter().map(bf16::to_f32).collect()
            }
        }
    }
}

impl Buffer {
    pub(crate) fn ptr(&self) -> Ptr {
        match self {
            Self::Emulator(memory) => memory.ptr(),
            Self::Device(memory) => memory.ptr(),
        }
    }
}

/// Each of `floats` as `element` can hold it.
pub(crate) fn rounded(element: ElementType, floats: &[f32]) -> Vec<f32> {
    let round = |value: &f32| match element {
        ElementType::F32 => *value,
        ElementType::F16 => f16::from_f32(*value).to_f32(),
        ElementType::Bf16 => bf16::from_f32(*value).to_f32(),
    };
    floats.iter().map(round).collect()
}

/// A pair of f32, whatever its rank.
pub(crate) fn pair_of(
    (a, b): (&[f32], &[f32]),
    (rank, inputs, outputs): (usize, usize, usize),
    scale: f32,
) -> LoraPair {
    let bytes = [a, b].map(|floats| weight_of(floats, WeightFormat::F32));
    let a = WeightBytes::new(&bytes[0], WeightFormat::F32, rank, inputs).expect("whole");
    let b = WeightBytes::new(&bytes[1], WeightFormat::F32, outputs, rank).expect("whole");
    LoraPair::new(&a, &b, scale).expect("sizes above zero")
}

/// Distance of neighbouring numbers of `element` around one.
pub(crate) fn step_of(element: ElementType) -> f32 {
    match element {
        ElementType::F32 => f32::EPSILON,
        ElementType::F16 => 1.0 / 1024.0,
        ElementType::Bf16 => 1.0 / 128.0,
    }
}

/// Asserts that numbers differ by no more than `tolerance` times the larger of one and the expected.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        let bound = tolerance * expected.abs().max(1.0);
        assert!(error <= bound, "{what}: element {index} is {found}, expected {expected}");
    }
}
