//! The device side of the ops: kernels loaded once per context, launches on a device's stream, and the
//! way from tensors to addresses.
//!
//! It knows no op. A build without CUDA has `cuda_disabled.rs` in its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUfunction_attribute, CUmemPool_attribute, CUresult,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, Device};

use crate::KernelError;
use crate::launch::{Args, Grid, Queue};

mod operand;

pub(crate) use operand::{Operand, empty, upload, write_to};

/// Each kernel file's name, and its code for the architectures that `build.rs` names.
static IMAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Shared memory above which a kernel must be told first.
const SHARED_BYTES_PLAIN: u32 = 48 << 10;

/// The answer of entries that have no device path yet: those that take weights packed for a CPU.
pub(crate) fn refuse<T>(op: &'static str) -> Result<T, KernelError> {
    Err(KernelError::NoDevicePath { op })
}

/// The modules of one context, and the functions found in them so far.
struct Loaded {
    modules: Vec<Arc<CudaModule>>,
    functions: Mutex<HashMap<String, CudaFunction>>,
}

impl Loaded {
    fn of(context: &Arc<CudaContext>) -> Result<Arc<Self>, KernelError> {
        static ALL: OnceLock<Mutex<HashMap<usize, Arc<Loaded>>>> = OnceLock::new();
        let mut all =
            ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let key = context.cu_ctx() as usize;
        if let Some(loaded) = all.get(&key) {
            return Ok(loaded.clone());
        }
        let load =
            |(_, image): &(&str, &[u8])| context.load_module(Ptx::from_binary(image.to_vec())).w();
        let modules = IMAGES.iter().map(load).collect::<candle_core::Result<_>>()?;
        let loaded = Arc::new(Self { modules, functions: Mutex::default() });
        all.insert(key, loaded.clone());
        Ok(loaded)
    }

    fn function(&self, name: &str, shared: u32) -> Result<CudaFunction, KernelError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let mut found = self.modules.iter().map(|module| module.load_function(name).w());
        let function = match found.find(Result::is_ok) {
            Some(function) => function?,
            None => return Err(KernelError::NoKernel { kernel: name.to_owned() }),
        };
        if shared > SHARED_BYTES_PLAIN {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared as i32).w()?;
        }
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }
}

/// Launches on the stream of a device.
pub(crate) struct DeviceQueue {
    stream: Arc<CudaStream>,
    loaded: Arc<Loaded>,
}

impl DeviceQueue {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self, KernelError> {
        let stream = device.cuda_stream();
        let loaded = Loaded::of(stream.context())?;
        Ok(Self { stream, loaded })
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl Queue for DeviceQueue {
    unsafe fn launch<A: Args>(
        &self,
        kernel: &str,
        grid: Grid,
        args: &A,
    ) -> Result<(), KernelError> {
        let function = self.loaded.function(kernel, grid.shared)?;
        let [x, y] = grid.blocks;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (grid.threads, 1, 1),
            shared_mem_bytes: grid.shared,
        };
        let args = Parameter(*args);
        let mut builder = self.stream.launch_builder(&function);
        builder.arg(&args);
        // SAFETY: each kernel takes one structure by value, and `A` is laid out as that structure; the
        // caller promises that the addresses in it are valid.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// Arguments as the driver takes them: the address of the structure.
#[repr(transparent)]
struct Parameter<A: Args>(A);

// SAFETY: `Args` promises the layout of the kernel's own structure.
unsafe impl<A: Args> candle_core::cuda_backend::cudarc::driver::DeviceRepr for Parameter<A> {}

/// The CUDA device of a candle device.
pub(crate) fn device_of<'a>(
    op: &'static str,
    device: &'a Device,
) -> Result<&'a CudaDevice, KernelError> {
    match device {
        Device::Cuda(device) => Ok(device),
        other => Err(KernelError::Device { op, device: other.location() }),
    }
}

/// The first CUDA device.
///
/// # Errors
/// No driver, no device, or one of the libraries that a device needs is missing.
pub fn device() -> Result<Device, KernelError> {
    device_at(0)
}

/// The CUDA device of a number.
///
/// # Errors
/// As of [`device`].
pub fn device_at(ordinal: usize) -> Result<Device, KernelError> {
    // A stream of its own: that of the calling thread would be another one in the thread that serves.
    let device = Device::new_cuda_with_stream(ordinal)
        .map_err(|error| KernelError::no_device(ordinal, &error.to_string()))?;
    if let Device::Cuda(device) = &device {
        // Events keep streams that share memory apart. With them an allocation makes two events and a
        // launch waits for one and records one per operand, which is most of what it costs the host, and
        // nothing could be captured: a capture must not wait for an event from outside.
        // SAFETY: the device has been given to nobody yet. It has one stream, which it gives to all that
        // use it, NCCL too, and tensors of different devices are never operands of one launch.
        unsafe { device.disable_event_tracking() };
        keep_freed_memory(device)?;
    }
    Ok(device)
}

/// Has a device keep what tensors give back for those to come: unless it is told, it hands all of it to the
/// system whenever somebody waits for it, and the next step asks for it again.
fn keep_freed_memory(device: &CudaDevice) -> Result<(), KernelError> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    let mut most = u64::MAX;
    let value = (&raw mut most).cast();
    // SAFETY: the context's own device, whose pool lives as long as the device; the attribute is a u64,
    // which is read before the call returns.
    let told = unsafe {
        device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
            let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            mem_pool::set_attribute(pool, threshold, value)
        })
    };
    match told {
        // Devices without pools allocate in another way.
        Err(error) if error.0 == CUresult::CUDA_ERROR_NOT_SUPPORTED => Ok(()),
        told => Ok(told.w()?),
    }
}
