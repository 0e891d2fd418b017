//! `A` and `B` of one module of one adapter, laid out for shrink and expand, and the rows they are
//! for.

use std::ops::Range;
use std::slice;
use std::sync::Arc;

use crate::aligned::LANES;
#[cfg(any(feature = "cuda", test))]
use crate::elements::Element as _;
use crate::elements::{Elements, with_elements};
use crate::on_device::Memo;
use crate::prefetch::Span;
use crate::tensor::shape_error;
use crate::{KernelError, WeightBytes};

const OP: &str = "lora pair";

/// The low-rank pair of one module, each half as wide as in the file. `A` lies as `[rank][in]`, each
/// run padded to whole vectors, `B` in panels `[out/16][rank][16]`.
#[derive(Debug)]
pub struct LoraPair {
    /// Shared by the ranks of a model that have it whole.
    a: Arc<Elements>,
    /// The same.
    b: Arc<Elements>,
    rank: usize,
    in_features: usize,
    out_features: usize,
    scale: f32,
    /// The copy on a device.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "for devices alone"))]
    memo: Memo,
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
        let (a, b) = (Arc::new(laid_out_a(a)), Arc::new(laid_out_b(b)));
        Ok(Self { a, b, rank, in_features, out_features, scale, memo: Memo::default() })
    }

    /// As [`LoraPair::new`], a part for each rank of a module that `cuts` divides: adding up what the
    /// parts of one row make of their inputs, or laying their outputs side by side, gives what the whole
    /// pair gives. A half that a rank has whole is held once for all.
    ///
    /// # Errors
    /// As of [`LoraPair::new`], or cuts outside the module.
    pub fn divided(
        a: &WeightBytes<'_>,
        b: &WeightBytes<'_>,
        scale: f32,
        cuts: &[PairCut],
    ) -> Result<Vec<Self>, KernelError> {
        if cuts.is_empty() {
            return Ok(vec![Self::new(a, b, scale)?]);
        }
        let (rank, sizes) = (a.rows(), (a.rows(), a.columns(), b.rows()));
        if rank == 0 || b.columns() != rank {
            return Err(shape_error(OP, "b", &[b.rows(), rank], &[b.rows(), b.columns()]));
        }
        let whole_a = cuts.iter().any(|cut| cut.has_inputs(sizes));
        let whole_a = whole_a.then(|| Arc::new(laid_out_a(a)));
        let whole_b = cuts.iter().any(|cut| cut.has_outputs(sizes));
        let whole_b = whole_b.then(|| Arc::new(laid_out_b(b)));
        let part = |cut: &PairCut| {
            let (in_features, out_features) = (cut.inputs.len(), cut.out_features());
            if in_features == 0 || out_features == 0 {
                return Err(KernelError::Size { op: OP, what: "zero" });
            }
            let a = match whole_a.as_ref().filter(|_| cut.has_inputs(sizes)) {
                Some(whole) => Arc::clone(whole),
                None => {
                    let bytes = a.cut(slice::from_ref(&(0..rank)), cut.inputs.clone())?;
                    let a = WeightBytes::new(&bytes, a.format(), rank, in_features)?;
                    Arc::new(laid_out_a(&a))
                }
            };
            let b = match whole_b.as_ref().filter(|_| cut.has_outputs(sizes)) {
                Some(whole) => Arc::clone(whole),
                None => {
                    let bytes = b.cut(&cut.outputs, 0..rank)?;
                    let b = WeightBytes::new(&bytes, b.format(), out_features, rank)?;
                    Arc::new(laid_out_b(&b))
                }
            };
            Ok(Self { a, b, rank, in_features, out_features, scale, memo: Memo::default() })
        };
        cuts.iter().map(part).collect()
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

    /// Bytes that [`LoraPair::divided`] holds for all ranks; `None` if that overflows.
    #[must_use]
    pub fn bytes_divided(
        sizes: (usize, usize, usize),
        width: usize,
        cuts: &[PairCut],
    ) -> Option<u64> {
        if cuts.is_empty() {
            return Self::bytes_for(sizes, width);
        }
        // A half alone is a pair whose other half is empty.
        let rank = sizes.0;
        let halves = |cut: &PairCut| {
            let a = (!cut.has_inputs(sizes)).then_some((rank, cut.inputs.len(), 0));
            let b = (!cut.has_outputs(sizes)).then_some((rank, 0, cut.out_features()));
            [a, b]
        };
        let whole_a = cuts.iter().any(|cut| cut.has_inputs(sizes)).then_some((rank, sizes.1, 0));
        let whole_b = cuts.iter().any(|cut| cut.has_outputs(sizes)).then_some((rank, 0, sizes.2));
        let mut all = cuts.iter().flat_map(halves).chain([whole_a, whole_b]).flatten();
        all.try_fold(0_u64, |sum, half| sum.checked_add(Self::bytes_for(half, width)?))
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

    #[cfg(feature = "cuda")]
    pub(crate) fn memo(&self) -> &Memo {
        &self.memo
    }

    /// `A`, `[rank, in]`, and `B`, `[out, rank]`, in floats.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn halves(&self) -> (Vec<f32>, Vec<f32>) {
        let (rank, inputs, outputs) = (self.rank, self.in_features, self.out_features);
        let run = inputs.next_multiple_of(LANES);
        let a = with_elements!(&*self.a, a => {
            let runs = a.chunks_exact(run);
            runs.flat_map(|run| run[..inputs].iter().map(|value| value.widen())).collect()
        });
        let b = with_elements!(&*self.b, b => {
            let place = |output: usize, of_rank: usize| {
                output / LANES * LANES * rank + of_rank * LANES + output % LANES
            };
            let row = |output| (0..rank).map(move |of_rank| b[place(output, of_rank)].widen());
            (0..outputs).flat_map(row).collect()
        });
        (a, b)
    }

    /// All of `A`, to be asked for before it is needed.
    pub(crate) fn a_span(&self) -> Span {
        with_elements!(&*self.a, a => Span::of(a))
    }

    /// Some panels of `B`, to be asked for before they are needed.
    pub(crate) fn b_span(&self, panels: Range<usize>) -> Span {
        let panel = LANES * self.rank;
        with_elements!(&*self.b, b => Span::of(&b[panels.start * panel..panels.end * panel]))
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

/// What one rank has of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairCut {
    /// Which inputs.
    pub inputs: Range<usize>,
    /// Which outputs, range after range.
    pub outputs: Vec<Range<usize>>,
}

impl PairCut {
    /// Outputs of the part.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.outputs.iter().map(Range::len).sum()
    }

    /// Whether it has all inputs of a module of these sizes.
    fn has_inputs(&self, (_, in_features, _): (usize, usize, usize)) -> bool {
        self.inputs == (0..in_features)
    }

    /// The same of outputs.
    fn has_outputs(&self, (_, _, out_features): (usize, usize, usize)) -> bool {
        matches!(self.outputs.as_slice(), [all] if *all == (0..out_features))
    }
}

/// `A` as `[rank][in]`, each run padded to whole vectors.
fn laid_out_a(a: &WeightBytes<'_>) -> Elements {
    Elements::arranged(a, (1, a.columns().next_multiple_of(LANES)), |_, input| input)
}

/// `B` in panels `[out/16][rank][16]`.
fn laid_out_b(b: &WeightBytes<'_>) -> Elements {
    let place = |output: usize, rank: usize| rank * LANES + output;
    Elements::arranged(b, (LANES, LANES * b.columns()), place)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightFormat;
    use crate::ops::lora_expand::lora_expand;
    use crate::ops::lora_shrink::lora_shrink;
    use crate::ops::testing::{Random, weight_of};
    use crate::tensor::from_host;

    /// `scale * (x Aᵀ) Bᵀ` of three rows.
    fn product(pair: &LoraPair, x: &[f32]) -> Vec<Vec<f32>> {
        let segments = [LoraSegment { row_start: 0, rows: 3, pair }];
        let x = from_host(x.to_vec(), (3, pair.in_features)).unwrap();
        let h = lora_shrink(&x, &segments).unwrap();
        let y = from_host(vec![0.0; 3 * pair.out_features], (3, pair.out_features)).unwrap();
        lora_expand(y, &h, &segments).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn parts_make_the_whole() {
        let (rank, inputs, outputs) = (5, 40, 70);
        let mut random = Random::new(71);
        let (a, b) = (random.floats(rank * inputs), random.floats(rank * outputs));
        let (a, b) = (weight_of(&a, WeightFormat::F32), weight_of(&b, WeightFormat::F32));
        let a = WeightBytes::new(&a, WeightFormat::F32, rank, inputs).unwrap();
        let b = WeightBytes::new(&b, WeightFormat::F32, outputs, rank).unwrap();
        let pair = LoraPair::new(&a, &b, 0.5).unwrap();
        assert_eq!(pair.halves(), (a.to_floats(), b.to_floats()));
        let x = random.floats(3 * inputs);
        let whole = product(&LoraPair::new(&a, &b, 0.5).unwrap(), &x);
        let cut = |inputs: Range<usize>, outputs: &[Range<usize>]| PairCut {
            inputs,
            outputs: outputs.to_vec(),
        };
        // By outputs: two fused modules, of which each part has some of both.
        let cuts = [cut(0..40, &[0..30, 50..61]), cut(0..40, &[30..50, 61..70])];
        let parts = LoraPair::divided(&a, &b, 0.5, &cuts).unwrap();
        assert!(Arc::ptr_eq(&parts[0].a, &parts[1].a), "held once");
        for (cut, part) in cuts.iter().zip(&parts) {
            for (row, found) in product(part, &x).iter().enumerate() {
                let columns = cut.outputs.iter().cloned().flatten();
                let expected: Vec<f32> = columns.map(|column| whole[row][column]).collect();
                assert_eq!(*found, expected);
            }
        }
        // By inputs.
        let all = slice::from_ref(&(0..70));
        let cuts = [cut(0..7, all), cut(7..40, all)];
        let parts = LoraPair::divided(&a, &b, 0.5, &cuts).unwrap();
        assert!(Arc::ptr_eq(&parts[0].b, &parts[1].b), "held once");
        let columns = |range: &Range<usize>| -> Vec<f32> {
            x.chunks(inputs).flat_map(|row| row[range.clone()].to_vec()).collect()
        };
        let first = product(&parts[0], &columns(&cuts[0].inputs));
        let second = product(&parts[1], &columns(&cuts[1].inputs));
        for row in 0..3 {
            for column in 0..outputs {
                let sum = first[row][column] + second[row][column];
                assert!((sum - whole[row][column]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn divided_pairs_have_the_bytes_they_said() {
        let (rank, inputs, outputs) = (4, 40, 70);
        let data = vec![0; 4 * rank * outputs];
        let a = WeightBytes::new(&data[..4 * rank * inputs], WeightFormat::F32, rank, inputs);
        let b = WeightBytes::new(&data, WeightFormat::F32, outputs, rank);
        let (a, b) = (a.unwrap(), b.unwrap());
        let check = |cuts: &[PairCut], shared: fn(&LoraPair) -> &Arc<Elements>, once: bool| {
            let parts = LoraPair::divided(&a, &b, 1.0, cuts).unwrap();
            let held: u64 = parts.iter().map(LoraPair::bytes).sum();
            let twice = if once { shared(&parts[0]).bytes() as u64 } else { 0 };
            let said = LoraPair::bytes_divided((rank, inputs, outputs), 4, cuts);
            assert_eq!(said, Some(held - twice));
        };
        check(&[], |pair| &pair.a, false);
        let columns = |range: Range<usize>| PairCut { inputs: 0..40, outputs: vec![range] };
        check(&[columns(0..33), columns(33..70)], |pair| &pair.a, true);
        let all = 0..70;
        let rows = |range: Range<usize>| PairCut { inputs: range, outputs: vec![all.clone()] };
        check(&[rows(0..33), rows(33..40)], |pair| &pair.b, true);
        for lying in [columns(0..71), rows(0..41), columns(3..3)] {
            assert!(LoraPair::divided(&a, &b, 1.0, &[lying]).is_err());
        }
    }
}
