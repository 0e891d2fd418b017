//! Adapters on a device: copied there when a step first uses them, and kept as long as the host keeps
//! them.
//!
//! What a step makes is kept for the next ones: while the same adapters decode, nothing is copied.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Tensor};

use super::Linear;
use crate::ops::lora_expand::cuda::lora_expand;
use crate::ops::lora_shrink::cuda::{
    DevicePair, DeviceStep, DeviceTable, LoraKernel, LoraSpan, lora_shrink,
};
use crate::{KernelError, LoraPair, LoraSegment, WeightBytes, WeightFormat};

/// Rows from which a segment goes to tensor cores.
const TILE_ROWS_MIN: usize = 8;
/// Steps that are kept: modules of one model have few different lists of ranks.
const STEPS_KEPT: usize = 8;

/// The adapters that a module was last used with.
pub(super) type LastTable = Mutex<Option<(Vec<Arc<DevicePair>>, Arc<DeviceTable>)>>;

/// What makes the work of a step what it is.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    spans: Vec<LoraSpan>,
    ranks: Vec<usize>,
    dtype: DType,
    device: DeviceLocation,
}

thread_local! {
    /// The latest last. A device belongs to one thread.
    static STEPS: RefCell<Vec<(Key, Arc<DeviceStep>)>> = const { RefCell::new(Vec::new()) };
}

/// Adds `scale * (x Aᵀ) Bᵀ` of each segment to its rows of `y`.
pub(crate) fn add_adapters(
    linear: &Linear,
    (x, y): (&Tensor, &Tensor),
    segments: &[LoraSegment<'_>],
) -> Result<(), KernelError> {
    if segments.is_empty() {
        return Ok(());
    }
    let (dtype, device) = (x.dtype(), x.device());
    let pairs = segments
        .iter()
        .map(|segment| on_device(segment.pair, dtype, device))
        .collect::<Result<Vec<_>, _>>()?;
    let table = table(linear, pairs, (dtype, device))?;
    let step = step(segments, &table, (dtype, device))?;
    let hidden = lora_shrink(x, &table, &step)?;
    lora_expand(y, &hidden, &table, &step)
}

/// Floats as a file would have them: devices' hosts have the order of bytes that files have.
fn bytes_of(floats: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: initialised floats, which have no padding, read as bytes.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// The copy of a pair, in the type of the model that it was first used with: adapters are one model's.
fn on_device(
    pair: &LoraPair,
    dtype: DType,
    device: &Device,
) -> Result<Arc<DevicePair>, KernelError> {
    let made = pair.memo().get(|| {
        let (a, b) = pair.halves();
        let (a, b) = (bytes_of(&a), bytes_of(&b));
        let (rank, format) = (pair.rank(), WeightFormat::F32);
        let a = WeightBytes::new(a, format, rank, pair.in_features())?;
        let b = WeightBytes::new(b, format, pair.out_features(), rank)?;
        Ok(Arc::new(DevicePair::new((&a, &b), pair.scale(), dtype, device)?))
    })?;
    Ok(Arc::clone(made))
}

fn table(
    linear: &Linear,
    pairs: Vec<Arc<DevicePair>>,
    (dtype, device): (DType, &Device),
) -> Result<Arc<DeviceTable>, KernelError> {
    let mut last = linear.table.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, table)) = last.as_ref() {
        let same = known.len() == pairs.len()
            && known.iter().zip(&pairs).all(|(known, pair)| Arc::ptr_eq(known, pair));
        if same {
            return Ok(Arc::clone(table));
        }
    }
    let entries = pairs.iter().map(|pair| Some(Arc::clone(pair))).collect();
    let table = Arc::new(DeviceTable::new(entries, dtype, device)?);
    *last = Some((pairs, Arc::clone(&table)));
    Ok(table)
}

fn step(
    segments: &[LoraSegment<'_>],
    table: &DeviceTable,
    (dtype, device): (DType, &Device),
) -> Result<Arc<DeviceStep>, KernelError> {
    let span = |(entry, segment): (usize, &LoraSegment<'_>)| LoraSpan {
        row_start: segment.row_start,
        rows: segment.rows,
        entry,
        kernel: match segment.rows < TILE_ROWS_MIN {
            true => LoraKernel::Rows,
            false => LoraKernel::Tiles,
        },
    };
    let key = Key {
        spans: segments.iter().enumerate().map(span).collect(),
        ranks: segments.iter().map(|segment| segment.pair.rank()).collect(),
        dtype,
        device: device.location(),
    };
    STEPS.with_borrow_mut(|steps| {
        if let Some((_, step)) = steps.iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(step));
        }
        let step = Arc::new(DeviceStep::new(&key.spans, table)?);
        if steps.len() == STEPS_KEPT {
            steps.remove(0);
        }
        steps.push((key, Arc::clone(&step)));
        Ok(step)
    })
}
