//! Ranks that each have a CUDA device, over NVIDIA's NCCL. Exchanges are queued on the device's stream
//! and nobody waits on the host.
//!
//! A device that fails ends the group for good; the library is asked for at run time, see `cuda-link`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, ReduceOp};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

use super::{Communicator, OP, check_widths};
use crate::KernelError;
use crate::cuda::device_of;

/// One rank.
struct Rank {
    comm: Comm,
    aborted: Arc<AtomicBool>,
}

// SAFETY: a communicator of NCCL may be used by any thread, one at a time; the trait's callers see to
// that, as each rank is one thread's. The flag is `Sync` by itself.
unsafe impl Sync for Rank {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Rank {}

impl std::fmt::Debug for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rank, size) = (self.comm.rank(), self.comm.world_size());
        f.debug_struct("Rank").field("rank", &rank).field("size", &size).finish_non_exhaustive()
    }
}

fn failed(error: NcclError) -> KernelError {
    // NCCL's own statuses name what is wrong in one word.
    KernelError::Tensor(candle_core::Error::Msg(format!("{OP}: nccl: {error:?}")))
}

/// A group with a rank per device, in their order.
///
/// # Errors
/// A device that is none of CUDA's, NCCL missing, or devices that it can't connect.
pub fn nccl_group(devices: &[Device]) -> Result<Vec<Arc<dyn Communicator>>, KernelError> {
    let streams = devices
        .iter()
        .map(|device| Ok(device_of(OP, device)?.cuda_stream()))
        .collect::<Result<Vec<_>, KernelError>>()?;
    let aborted = Arc::new(AtomicBool::new(false));
    let rank =
        |comm| -> Arc<dyn Communicator> { Arc::new(Rank { comm, aborted: Arc::clone(&aborted) }) };
    Ok(Comm::from_devices(streams).map_err(failed)?.into_iter().map(rank).collect())
}

impl Communicator for Rank {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn size(&self) -> usize {
        self.comm.world_size()
    }

    fn all_reduce(&self, x: Tensor) -> Result<Tensor, KernelError> {
        self.check(&x)?;
        let shape = x.shape().clone();
        Ok(x.apply_op1_no_bwd(&Exchange { rank: self, shape, reduces: true })?)
    }

    fn all_gather(&self, x: Tensor, widths: &[usize]) -> Result<Tensor, KernelError> {
        self.check(&x)?;
        check_widths((self.rank(), self.size()), &x, widths)?;
        // The library takes parts of one size: narrow ones are padded, and cut again.
        let widest = widths.iter().copied().max().unwrap_or(0);
        let rows = x.dims()[0];
        let padded = x.pad_with_zeros(1, 0, widest - widths[self.rank()])?.contiguous()?;
        let shape = Shape::from((self.size(), rows, widest));
        let all = padded.apply_op1_no_bwd(&Exchange { rank: self, shape, reduces: false })?;
        let parts = widths
            .iter()
            .enumerate()
            .map(|(rank, width)| all.get(rank)?.narrow(1, 0, *width))
            .collect::<candle_core::Result<Vec<Tensor>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }

    fn abort(&self) {
        // Ranks that wait for this one do so on their devices, and end with the process.
        self.aborted.store(true, Ordering::SeqCst);
    }

    fn reset(&self) -> Result<(), KernelError> {
        match self.aborted.load(Ordering::SeqCst) {
            // Devices may be at different exchanges.
            true => Err(KernelError::Aborted { op: OP }),
            false => Ok(()),
        }
    }
}

impl Rank {
    fn check(&self, x: &Tensor) -> Result<(), KernelError> {
        if self.aborted.load(Ordering::SeqCst) {
            return Err(KernelError::Aborted { op: OP });
        }
        match x.dtype() {
            DType::F32 => Ok(()),
            found => Err(KernelError::Dtype { op: OP, operand: "x", found }),
        }
    }
}

/// One exchange, as an op of the tensor library.
struct Exchange<'a> {
    rank: &'a Rank,
    /// Of the result.
    shape: Shape,
    /// Adds up, or lays one after another.
    reduces: bool,
}

impl CustomOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let device = Device::Cpu.location();
        Err(candle_core::Error::wrap(KernelError::Device { op: OP, device }))
    }

    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            let error = KernelError::NotContiguous { op: OP, operand: "x" };
            return Err(candle_core::Error::wrap(error));
        };
        let source = storage.as_cuda_slice::<f32>()?.slice(start..end);
        let device = storage.device.clone();
        // SAFETY: the exchange below writes every element.
        let mut target: CudaSlice<f32> = unsafe { device.alloc(self.shape.elem_count())? };
        let comm = &self.rank.comm;
        let done = match self.reduces {
            true => comm.all_reduce(&source, &mut target, &ReduceOp::Sum),
            false => comm.all_gather(&source, &mut target),
        };
        done.map_err(|error| candle_core::Error::wrap(failed(error)))?;
        let slice = CudaStorageSlice::F32(target);
        Ok((CudaStorage { slice, device }, self.shape.clone()))
    }
}
