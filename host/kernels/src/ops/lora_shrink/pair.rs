//! `A` and `B` of one module of one adapter, laid out for shrink and expand, and the rows they are
//! for.

use std::ops::Range;

use crate::aligned::LANES;
use crate::elements::{Elements, with_elements};
use crate::prefetch::Span;
use crate::tensor::shape_error;
use crate::{KernelError, WeightBytes};

const OP: &str = "lora pair";

/// The low-rank pair of one module, each half as wide as in the file. `A` lies as `[rank][in]`, each
/// run padded to whole vectors, `B` in panels `[out/16][rank][16]`.
#[derive(Debug)]
pub struct LoraPair {
    a: Elements,
    b: Elements,
    rank: usize,
    in_features: usize,
    out_features: usize,
    scale: f32,
}

impl LoraPair {
    /// Lays out `a`, `[rank, in]`, and `b`, `[out, rank]`. `scale` is the factor of the product:
    /// `lora_alpha / r`, or with the root of `r` for rank-stabilised adapters.
    ///
    /// # Errors
    /// A size of zero, or two ranks that differ.
    pub fn new(a: &WeightBytes<'_>, b: &WeightBytes<'_>, scale: f32) -> Result<Self, KernelError> {
        let (rank, in_features, out_features) = (a.rows(), a.columns(), b.rows());
        if rank == 0 || in_features == 0 || out_features == 0 {
            return Err(KernelError::Size { op: OP, what: "zero" });
        }
        if b.columns() != rank {
            return Err(shape_error(OP, "b", &[out_features, rank], &[b.rows(), b.columns()]));
        }
        let run = in_features.next_multiple_of(LANES);
        let a = Elements::arranged(a, (1, run), |_, input| input);
        let place = |output: usize, rank: usize| rank * LANES + output;
        let b = Elements::arranged(b, (LANES, LANES * rank), place);
        Ok(Self { a, b, rank, in_features, out_features, scale })
    }

    /// Bytes that a pair of these sizes holds, its numbers `width` bytes each; `None` if that
    /// overflows.
    #[must_use]
    pub fn bytes_for(
        (rank, in_features, out_features): (usize, usize, usize),
        width: usize,
    ) -> Option<u64> {
        let bytes = |elements: usize| elements.checked_mul(width)?.checked_next_multiple_of(64);
        let inputs = in_features.checked_next_multiple_of(LANES)?.checked_mul(rank)?;
        let outputs = out_features.checked_next_multiple_of(LANES)?.checked_mul(rank)?;
        u64::try_from(bytes(inputs)?.checked_add(bytes(outputs)?)?).ok()
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

    pub(crate) fn a(&self) -> &Elements {
        &self.a
    }

    pub(crate) fn b(&self) -> &Elements {
        &self.b
    }

    /// All of `A`, to be asked for before it is needed.
    pub(crate) fn a_span(&self) -> Span {
        with_elements!(&self.a, a => Span::of(a))
    }

    /// Some panels of `B`, to be asked for before they are needed.
    pub(crate) fn b_span(&self, panels: Range<usize>) -> Span {
        let panel = LANES * self.rank;
        with_elements!(&self.b, b => Span::of(&b[panels.start * panel..panels.end * panel]))
    }

    #[cfg(test)]
    pub(crate) fn of_floats(
        a: &[f32],
        b: &[f32],
        (rank, in_features, out_features): (usize, usize, usize),
        scale: f32,
    ) -> Self {
        use crate::WeightFormat;
        use crate::ops::testing::weight_of;
        let of = |values: &[f32], format| weight_of(values, format);
        // Some of the tests' pairs are narrow.
        let format = if rank % 4 == 1 { WeightFormat::Bf16 } else { WeightFormat::F32 };
        let (a, b) = (of(a, format), of(b, format));
        let a = WeightBytes::new(&a, format, rank, in_features).expect("whole");
        let b = WeightBytes::new(&b, format, out_features, rank).expect("whole");
        Self::new(&a, &b, scale).expect("sizes above zero")
    }

    #[cfg(test)]
    pub(crate) fn random(
        random: &mut crate::ops::testing::Random,
        in_features: usize,
        rank: usize,
        out_features: usize,
    ) -> Self {
        let (a, b) = (random.floats(rank * in_features), random.floats(rank * out_features));
        Self::of_floats(&a, &b, (rank, in_features, out_features), 0.7)
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
