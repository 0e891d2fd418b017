//! `A` and `B` of one module of one adapter, laid out for shrink and expand, and the rows they are
//! for.

use crate::KernelError;
use crate::aligned::{AlignedFloats, LANES};
use crate::tensor::shape_error;

const OP: &str = "lora pair";

/// The low-rank pair of one module. `A` lies as `[rank][in]`, each run padded to whole vectors,
/// `B` in panels `[out/16][rank][16]`.
#[derive(Debug)]
pub struct LoraPair {
    a: AlignedFloats,
    b: AlignedFloats,
    rank: usize,
    in_features: usize,
    out_features: usize,
    scale: f32,
}

impl LoraPair {
    /// Lays out `a`, `[rank, in]`, and `b`, `[out, rank]`, row-major. `scale` is the factor of the
    /// product: `lora_alpha / r`, or with the root of `r` for rank-stabilised adapters.
    ///
    /// # Errors
    /// A size of zero, or lengths that are not those of the sizes.
    pub fn new(
        a: &[f32],
        b: &[f32],
        (rank, in_features, out_features): (usize, usize, usize),
        scale: f32,
    ) -> Result<Self, KernelError> {
        if rank == 0 || in_features == 0 || out_features == 0 {
            return Err(KernelError::Size { op: OP, what: "zero" });
        }
        if Some(a.len()) != rank.checked_mul(in_features) {
            return Err(shape_error(OP, "a", &[rank, in_features], &[a.len()]));
        }
        if Some(b.len()) != rank.checked_mul(out_features) {
            return Err(shape_error(OP, "b", &[out_features, rank], &[b.len()]));
        }
        let run = in_features.next_multiple_of(LANES);
        let mut rows = AlignedFloats::zeros(rank * run);
        for (target, a) in rows.as_mut_slice().chunks_exact_mut(run).zip(a.chunks(in_features)) {
            target[..in_features].copy_from_slice(a);
        }
        let mut panels = AlignedFloats::zeros(out_features.next_multiple_of(LANES) * rank);
        let target = panels.as_mut_slice();
        for (output, b) in b.chunks(rank).enumerate() {
            let start = output / LANES * LANES * rank + output % LANES;
            for (i, value) in b.iter().enumerate() {
                target[start + i * LANES] = *value;
            }
        }
        Ok(Self { a: rows, b: panels, rank, in_features, out_features, scale })
    }

    /// Bytes that a pair of these sizes holds; `None` if that overflows.
    #[must_use]
    pub fn bytes_for(rank: usize, in_features: usize, out_features: usize) -> Option<u64> {
        let inputs = in_features.checked_next_multiple_of(LANES)?.checked_mul(rank)?;
        let outputs = out_features.checked_next_multiple_of(LANES)?.checked_mul(rank)?;
        let bytes = inputs.checked_add(outputs)?.checked_mul(size_of::<f32>())?;
        u64::try_from(bytes).ok()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.a.bytes() + self.b.bytes()) as u64
    }

    /// Rank of the pair.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Inputs of the module.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Outputs of the module.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Factor of the product.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    pub(crate) fn a(&self) -> &[f32] {
        self.a.as_slice()
    }

    pub(crate) fn b(&self) -> &[f32] {
        self.b.as_slice()
    }

    #[cfg(test)]
    pub(crate) fn random(
        random: &mut crate::ops::testing::Random,
        in_features: usize,
        rank: usize,
        out_features: usize,
    ) -> Self {
        let (a, b) = (random.floats(rank * in_features), random.floats(rank * out_features));
        Self::new(&a, &b, (rank, in_features, out_features), 0.7).expect("sizes above zero")
    }
}

/// Rows of a batch that one pair applies to.
#[derive(Clone, Copy, Debug)]
pub struct LoraSegment<'a> {
    /// First row.
    pub row_start: usize,
    /// Rows.
    pub rows: usize,
    /// The pair.
    pub pair: &'a LoraPair,
}

/// Checks that segments are in order, apart and inside `rows`, and that the two widths that `widths`
/// gives agree. Returns the floats of all hidden states.
pub(crate) fn check_segments(
    op: &'static str,
    segments: &[LoraSegment<'_>],
    rows: usize,
    widths: impl Fn(&LoraPair) -> (usize, usize),
) -> Result<usize, KernelError> {
    let (mut next, mut hidden) = (0, 0);
    for segment in segments {
        let end = segment.row_start.saturating_add(segment.rows);
        if segment.row_start < next {
            let (value, bound) = (segment.row_start, next);
            return Err(KernelError::Bound { op, what: "first row of a segment", value, bound });
        }
        if end > rows {
            let what = "last row of a segment";
            return Err(KernelError::Bound { op, what, value: end, bound: rows });
        }
        let (pair, operand) = widths(segment.pair);
        if pair != operand {
            return Err(shape_error(op, "pair", &[operand], &[pair]));
        }
        next = end;
        hidden += segment.rows * segment.pair.rank;
    }
    Ok(hidden)
}
