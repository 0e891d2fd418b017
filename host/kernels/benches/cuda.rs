//! Times of the LoRA and attention kernels on a device, with the share of the memory bandwidth that the
//! same run measures: `cargo bench -p kernels --features cuda --bench cuda`.
//!
//! Work that is queued many times over is timed between two events, so a line is the device's time as long
//! as the host queues faster. Weights and keys are taken from as many copies as exceed the caches.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, DType, Device, Tensor};
use kernels::ops::kv_write::cuda::DeviceBlocks;
use kernels::ops::lora_expand::cuda::lora_expand;
use kernels::ops::lora_shrink::cuda::{
    DevicePair, DeviceStep, DeviceTable, LoraKernel, LoraSpan, lora_shrink,
};
use kernels::ops::paged_attention::cuda as attention;
use kernels::{
    AttentionShape, KvFormat, KvGeometry, PagedPlan, PagedSpan, WeightBytes, WeightFormat,
};

type Failure = Box<dyn std::error::Error>;

const SEQUENCES: [usize; 5] = [1, 8, 32, 128, 256];
const ADAPTERS: [usize; 4] = [0, 1, 32, 256];
const RANK: usize = 16;
const WIDTH: usize = 4096;
const CONTEXT: usize = 1024;
/// More than the second-level cache of any device so far.
const COLD_BYTES: usize = 256 << 20;
const COPIES_MAX: usize = 64;
const ROUNDS: usize = 100;

fn main() -> Result<(), Failure> {
    let device = match Device::new_cuda(0) {
        Ok(device) => device,
        Err(error) => {
            println!("no device to measure: {error}");
            return Ok(());
        }
    };
    let Device::Cuda(cuda) = &device else { unreachable!("`new_cuda` gives a CUDA device") };
    let bandwidth = copy_bandwidth(cuda, &device)?;
    println!("copy: {:.0} GB/s read and written; shares are of this", bandwidth / 1e9);
    println!("\nLoRA, {WIDTH} to {WIDTH}, rank {RANK}, bf16, one row per sequence");
    println!("sequences adapters  shrink us  expand us   GB/s  share");
    for sequences in SEQUENCES {
        for adapters in ADAPTERS {
            lora(cuda, &device, (sequences, adapters), bandwidth)?;
        }
    }
    println!("\nattention, 32 heads on 8, width 128, {CONTEXT} positions, bf16");
    println!("sequences  us         GB/s  share");
    for sequences in SEQUENCES {
        decode(cuda, &device, sequences, bandwidth)?;
    }
    println!("\nattention of a prompt, as above: positions  us  TFLOP/s");
    for rows in [512, 2048, 8192] {
        prompt(cuda, &device, rows)?;
    }
    Ok(())
}

/// Microseconds of one of `ROUNDS` runs.
fn time(
    cuda: &CudaDevice,
    mut run: impl FnMut(usize) -> Result<(), Failure>,
) -> Result<f64, Failure> {
    for round in 0..5 {
        run(round)?;
    }
    let stream = cuda.cuda_stream();
    stream.synchronize()?;
    let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let begin = stream.record_event(flags)?;
    for round in 0..ROUNDS {
        run(round)?;
    }
    let end = stream.record_event(flags)?;
    end.synchronize()?;
    Ok(f64::from(begin.elapsed_ms(&end)?) * 1e3 / ROUNDS as f64)
}

fn copy_bandwidth(cuda: &CudaDevice, device: &Device) -> Result<f64, Failure> {
    let bytes = 512 << 20;
    let source = Tensor::zeros(bytes / 4, DType::F32, device)?;
    let micros = time(cuda, |_| {
        source.copy()?;
        Ok(())
    })?;
    Ok(2.0 * bytes as f64 / (micros / 1e6))
}

fn lora(
    cuda: &CudaDevice,
    device: &Device,
    (sequences, adapters): (usize, usize),
    bandwidth: f64,
) -> Result<(), Failure> {
    let used = adapters.min(sequences);
    let bytes = used.max(1) * 2 * RANK * WIDTH * 2;
    let copies = (COLD_BYTES / bytes).clamp(1, COPIES_MAX);
    let floats = (0..RANK * WIDTH).map(|i| (i % 17) as f32 / 1000.0);
    let weights: Vec<u8> = floats.flat_map(f32::to_le_bytes).collect();
    let mut tables = Vec::new();
    for _ in 0..copies {
        let pair = || -> Result<_, Failure> {
            let a = WeightBytes::new(&weights, WeightFormat::F32, RANK, WIDTH)?;
            let b = WeightBytes::new(&weights, WeightFormat::F32, WIDTH, RANK)?;
            let pair = DevicePair::new((&a, &b), 0.5, DType::BF16, device)?;
            Ok(Some(Arc::new(pair)))
        };
        let pairs = (0..used).map(|_| pair()).collect::<Result<_, _>>()?;
        tables.push(DeviceTable::new(pairs, DType::BF16, device)?);
    }
    let span = |row_start| LoraSpan {
        row_start,
        rows: 1,
        entry: row_start % used.max(1),
        kernel: LoraKernel::Rows,
    };
    let spans: Vec<_> = (0..if used == 0 { 0 } else { sequences }).map(span).collect();
    let step = DeviceStep::new(&spans, &tables[0])?;
    let x = Tensor::ones((sequences, WIDTH), DType::BF16, device)?;
    let y = Tensor::ones((sequences, WIDTH), DType::BF16, device)?;
    let hidden = lora_shrink(&x, &tables[0], &step)?;
    let shrink = time(cuda, |round| {
        lora_shrink(&x, &tables[round % copies], &step)?;
        Ok(())
    })?;
    let expand = time(cuda, |round| Ok(lora_expand(&y, &hidden, &tables[round % copies], &step)?))?;
    // Weights once, `x` read, `y` read and written.
    let moved = if used == 0 { 0 } else { bytes + 3 * sequences * WIDTH * 2 };
    let rate = moved as f64 / ((shrink + expand) / 1e6);
    println!(
        "{sequences:9} {adapters:8} {shrink:10.1} {expand:10.1} {:6.0} {:5.1}%",
        rate / 1e9,
        100.0 * rate / bandwidth
    );
    Ok(())
}

const GEOMETRY: KvGeometry =
    KvGeometry { blocks: 0, block_tokens: 16, kv_heads: 8, head_dim: 128, format: KvFormat::F32 };
const SHAPE: AttentionShape =
    AttentionShape { heads: 32, window: None, scale: 0.088_388_35, softcap: None };

/// A step of spans of (rows, positions), and layers of blocks to run it over.
fn blocks(
    spans: &[(usize, usize)],
    device: &Device,
) -> Result<(attention::DeviceStep, Vec<DeviceBlocks>, usize), Failure> {
    let mut next = 0;
    let mut row_start = 0;
    let mut list = Vec::new();
    for &(rows, context_len) in spans {
        let count = context_len.div_ceil(GEOMETRY.block_tokens) as u32;
        list.push(PagedSpan {
            row_start,
            rows,
            context_len,
            block_table: (next..next + count).collect(),
        });
        next += count;
        row_start += rows;
    }
    let geometry = KvGeometry { blocks: next as usize, ..GEOMETRY };
    let bytes = geometry.blocks * 16 * geometry.kv_heads * geometry.head_dim * 2 * 2;
    let copies = (COLD_BYTES / bytes).clamp(1, COPIES_MAX);
    let plan = PagedPlan::new(list, &geometry)?;
    let step = attention::DeviceStep::new(&plan, geometry, SHAPE, DType::BF16, device)?;
    let layer = |_| DeviceBlocks::new(geometry, DType::BF16, device);
    Ok((step, (0..copies).map(layer).collect::<Result<_, _>>()?, bytes))
}

fn decode(
    cuda: &CudaDevice,
    device: &Device,
    sequences: usize,
    bandwidth: f64,
) -> Result<(), Failure> {
    let (step, layers, bytes) = blocks(&vec![(1, CONTEXT); sequences], device)?;
    let q = Tensor::ones((sequences, 32 * 128), DType::BF16, device)?;
    let micros = time(cuda, |round| {
        attention::paged_attention(&q, &layers[round % layers.len()], &step)?;
        Ok(())
    })?;
    let rate = bytes as f64 / (micros / 1e6);
    println!("{sequences:9} {micros:10.1} {:6.0} {:5.1}%", rate / 1e9, 100.0 * rate / bandwidth);
    Ok(())
}

fn prompt(cuda: &CudaDevice, device: &Device, rows: usize) -> Result<(), Failure> {
    let (step, layers, _) = blocks(&[(rows, rows)], device)?;
    let q = Tensor::ones((rows, 32 * 128), DType::BF16, device)?;
    let micros = time(cuda, |round| {
        attention::paged_attention(&q, &layers[round % layers.len()], &step)?;
        Ok(())
    })?;
    // Two products of each pair of positions, half of them masked.
    let operations = 2.0 * 2.0 * 32.0 * 128.0 * (rows * rows) as f64 / 2.0;
    println!("{rows:6} {micros:10.1} {:8.1}", operations / micros / 1e6);
    Ok(())
}
