//! What models hold on a CUDA device in a build without CUDA: nothing. The types have no values, the ops
//! refuse.

use candle_core::{DType, Device, Tensor};

use crate::cuda::refuse;
use crate::{
    AttentionShape, KernelError, KvGeometry, LoraSegment, PagedPlan, RopeAngles, SampleParams,
    WeightBytes, WeightFormat,
};

/// Nothing was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo(());

/// A weight.
#[derive(Debug)]
pub(crate) enum Linear {}

impl Linear {
    pub(crate) fn pack(
        _: &WeightBytes<'_>,
        _: Option<&[f32]>,
        _: WeightFormat,
        _: &Device,
    ) -> Result<Self, KernelError> {
        refuse("linear")
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn forward(&self, _: &Tensor) -> Result<Tensor, KernelError> {
        match *self {}
    }
}

/// What adapters add.
pub(crate) fn add_adapters(
    linear: &Linear,
    _: (&Tensor, &Tensor),
    _: &[LoraSegment<'_>],
) -> Result<(), KernelError> {
    match *linear {}
}

/// A table of embeddings.
#[derive(Debug)]
pub(crate) enum Table {}

impl Table {
    pub(crate) fn new(_: &WeightBytes<'_>, _: &Device) -> Result<Self, KernelError> {
        refuse("embedding")
    }

    pub(crate) fn tied(linear: &Linear) -> Result<Self, KernelError> {
        match *linear {}
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }
}

/// Rows of a table.
pub(crate) fn gather(
    table: &Table,
    _: &[u32],
    _: Option<(usize, usize)>,
) -> Result<Tensor, KernelError> {
    match *table {}
}

/// Keys and values.
#[derive(Debug)]
pub(crate) enum Blocks {}

/// Blocks of a layer.
pub(crate) fn blocks(_: KvGeometry, _: Option<DType>, _: &Device) -> Result<Blocks, KernelError> {
    refuse("kv blocks")
}

pub(crate) fn kv_write(
    _: (&Tensor, &Tensor),
    _: &PagedPlan,
    blocks: &mut Blocks,
) -> Result<(), KernelError> {
    match *blocks {}
}

pub(crate) fn paged_attention(
    _: &Tensor,
    blocks: &Blocks,
    _: &PagedPlan,
    _: &AttentionShape,
) -> Result<Tensor, KernelError> {
    match *blocks {}
}

pub(crate) fn rope(_: Tensor, _: (&RopeAngles, &Memo)) -> Result<Tensor, KernelError> {
    refuse("rope")
}

pub(crate) fn rms_norm(_: &Tensor, _: &Tensor, _: f32) -> Result<Tensor, KernelError> {
    refuse("rms_norm")
}

pub(crate) fn silu_mul(_: &Tensor, _: &Tensor) -> Result<Tensor, KernelError> {
    refuse("silu_mul")
}

pub(crate) fn gelu_mul(_: &Tensor, _: &Tensor) -> Result<Tensor, KernelError> {
    refuse("gelu_mul")
}

pub(crate) fn softcap(_: &Tensor, _: f32) -> Result<Tensor, KernelError> {
    refuse("softcap")
}

pub(crate) fn add(_: &Tensor, _: &Tensor) -> Result<Tensor, KernelError> {
    refuse("add")
}

pub(crate) fn sample(_: &Tensor, _: &[SampleParams]) -> Result<Vec<u32>, KernelError> {
    refuse("sample")
}
