//! Shrink and expand on every machine, against the ops of the CPU and against themselves in other
//! company.

use super::step::{Entry, LoraKernel, LoraSpan, Memory, Step, expand, padded, shrink};
use super::{LoraPair, LoraSegment, lora_shrink};
use crate::launch::{ElementType, Ptr};
use crate::ops::lora_expand::lora_expand;
use crate::ops::testing::Random;
use crate::tensor::from_host;
use crate::tests::{Buffer, Machine, assert_close, on_machines, pair_of, rounded, step_of};

const ELEMENTS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Bf16];

/// Adapters of one module, on a machine and as the host has them.
struct Adapters {
    pairs: Vec<LoraPair>,
    entries: Buffer,
    /// Keeps the weights.
    _weights: Vec<Buffer>,
    ranks: Vec<usize>,
    element: ElementType,
}

/// `rows` runs of `width`, each padded with zeros as devices have them.
fn padded_runs(floats: &[f32], width: usize) -> Vec<f32> {
    let run = |run: &[f32]| {
        let mut run = run.to_vec();
        run.resize(padded(width), 0.0);
        run
    };
    floats.chunks(width).flat_map(run).collect()
}

impl Adapters {
    fn new(
        machine: &Machine,
        random: &mut Random,
        element: ElementType,
        (inputs, outputs): (usize, usize),
        ranks: &[usize],
    ) -> Self {
        let (mut pairs, mut entries, mut weights) = (vec![], vec![], vec![]);
        for (index, &rank) in ranks.iter().enumerate() {
            let a = rounded(element, &random.floats(rank * inputs));
            let b = rounded(element, &random.floats(outputs * rank));
            let scale = 0.5 + index as f32 / 8.0;
            pairs.push(pair_of((&a, &b), (rank, inputs, outputs), scale));
            let a = machine.upload_as(element, &padded_runs(&a, inputs));
            let b = machine.upload_as(element, &padded_runs(&b, rank));
            entries.push(Entry { a: a.ptr(), b: b.ptr(), rank: rank as i32, scale });
            weights.extend([a, b]);
        }
        let entries = machine.upload(&entries);
        Self { pairs, entries, _weights: weights, ranks: ranks.to_vec(), element }
    }

    fn segments(&self, spans: &[LoraSpan]) -> Vec<LoraSegment<'_>> {
        spans
            .iter()
            .map(|s| LoraSegment {
                row_start: s.row_start,
                rows: s.rows,
                pair: &self.pairs[s.entry],
            })
            .collect()
    }

    fn step(&self, spans: &[LoraSpan]) -> Step {
        Step::new(spans, &self.ranks, self.element).unwrap()
    }

    fn memory(&self, x: Ptr, hidden: Ptr, items: Ptr, width: usize) -> Memory {
        Memory { x, hidden, entries: self.entries.ptr(), items, width, element: self.element }
    }

    /// Hidden states of `x`, `[rows, width]`.
    fn shrink(&self, machine: &Machine, spans: &[LoraSpan], x: &[f32], width: usize) -> Vec<f32> {
        let step = self.step(spans);
        let (x, items) = (machine.upload_as(self.element, x), machine.upload(&step.items));
        let hidden = machine.upload(&vec![f32::NAN; step.hidden_len]);
        let memory = self.memory(x.ptr(), hidden.ptr(), items.ptr(), width);
        // SAFETY: buffers of the sizes that the step and the entries say.
        unsafe { shrink(machine, &step, &memory) }.unwrap();
        machine.download(&hidden)
    }

    /// `y`, `[rows, width]`, after expand.
    fn expand(
        &self,
        machine: &Machine,
        spans: &[LoraSpan],
        (hidden, y): (&[f32], &[f32]),
        width: usize,
    ) -> Vec<f32> {
        let step = self.step(spans);
        let (y, items) = (machine.upload_as(self.element, y), machine.upload(&step.items));
        let hidden = machine.upload(hidden);
        let memory = self.memory(y.ptr(), hidden.ptr(), items.ptr(), width);
        // SAFETY: as in `shrink`.
        unsafe { expand(machine, &step, &memory) }.unwrap();
        machine.download_as(self.element, &y)
    }
}

/// Spans over the adapters in order, with base rows before, between and after them.
fn spans(lengths: &[usize], kernel: impl Fn(usize) -> LoraKernel) -> (Vec<LoraSpan>, usize) {
    let mut row_start = 1;
    let mut spans = Vec::new();
    for (entry, &rows) in lengths.iter().enumerate() {
        spans.push(LoraSpan { row_start, rows, entry, kernel: kernel(entry) });
        row_start += rows + entry % 2;
    }
    (spans, row_start + 1)
}

fn mixed(index: usize) -> LoraKernel {
    if index.is_multiple_of(2) { LoraKernel::Rows } else { LoraKernel::Tiles }
}

/// Ranks, rows of each, inputs, outputs.
const SHAPES: &[(&[usize], &[usize], usize, usize)] = &[
    (&[16], &[1], 256, 256),
    (&[1, 2, 3, 4, 5], &[1, 2, 0, 16, 17], 64, 40),
    (&[8, 16, 64, 256, 33], &[3, 33, 2, 5, 1], 192, 300),
    (&[7, 130, 32], &[2, 18, 4], 77, 19),
    (&[1, 1], &[1, 1], 1, 1),
];

#[test]
fn shrink_is_the_specification_on_every_machine() {
    on_machines(|machine| {
        for (seed, &(ranks, lengths, inputs, _)) in SHAPES.iter().enumerate() {
            for element in ELEMENTS {
                let mut random = Random::new(seed as u64 + 1);
                let adapters = Adapters::new(machine, &mut random, element, (inputs, 3), ranks);
                let (spans, rows) = spans(lengths, mixed);
                let x = rounded(element, &random.floats(rows * inputs));
                let found = adapters.shrink(machine, &spans, &x, inputs);
                let x = from_host(x, (rows, inputs)).unwrap();
                let expected = lora_shrink(&x, &adapters.segments(&spans)).unwrap();
                let expected = expected.to_vec1::<f32>().unwrap();
                assert_close(&found, &expected, 1e-5, &format!("{ranks:?} {element:?}"));
            }
        }
    });
}

#[test]
fn expand_is_the_specification_on_every_machine_and_leaves_base_rows() {
    on_machines(|machine| {
        for (seed, &(ranks, lengths, _, outputs)) in SHAPES.iter().enumerate() {
            for element in ELEMENTS {
                let mut random = Random::new(seed as u64 + 1);
                let adapters = Adapters::new(machine, &mut random, element, (3, outputs), ranks);
                let (spans, rows) = spans(lengths, mixed);
                let y = rounded(element, &random.floats(rows * outputs));
                let hidden = random.floats(adapters.step(&spans).hidden_len);
                let found = adapters.expand(machine, &spans, (&hidden, &y), outputs);
                let expected = lora_expand(
                    from_host(y.clone(), (rows, outputs)).unwrap(),
                    &from_host(hidden.clone(), hidden.len()).unwrap(),
                    &adapters.segments(&spans),
                )
                .unwrap();
                let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let tolerance = 1e-5_f32.max(step_of(element) * 0.6);
                assert_close(&found, &expected, tolerance, &format!("{ranks:?} {element:?}"));
                for row in 0..rows {
                    let used = |s: &LoraSpan| (s.row_start..s.row_start + s.rows).contains(&row);
                    if !spans.iter().any(used) {
                        let row = row * outputs..(row + 1) * outputs;
                        assert_eq!(found[row.clone()], y[row], "a base row was touched");
                    }
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    on_machines(|machine| {
        for (element, kernel) in [
            (ElementType::F32, LoraKernel::Rows),
            (ElementType::Bf16, LoraKernel::Rows),
            (ElementType::Bf16, LoraKernel::Tiles),
            (ElementType::F16, LoraKernel::Tiles),
        ] {
            let mut random = Random::new(5);
            let (inputs, outputs) = (136, 72);
            let adapters =
                Adapters::new(machine, &mut random, element, (inputs, outputs), &[20, 3]);
            let (spans, rows) = spans(&[19, 2], |_| kernel);
            let x = random.floats(rows * inputs);
            let y = random.floats(rows * outputs);
            let hidden = adapters.shrink(machine, &spans, &x, inputs);
            let out = adapters.expand(machine, &spans, (&hidden, &y), outputs);
            for row in [0, 7, 8, 15, 16, 18] {
                let at = spans[0].row_start + row;
                let alone = [LoraSpan { row_start: 0, rows: 1, entry: 0, kernel }];
                let x = &x[at * inputs..(at + 1) * inputs];
                let found = adapters.shrink(machine, &alone, x, inputs);
                assert_eq!(found, hidden[row * 20..(row + 1) * 20], "{element:?} {kernel:?}");
                let here = at * outputs..(at + 1) * outputs;
                let y = &y[here.clone()];
                let found = adapters.expand(machine, &alone, (&found, y), outputs);
                assert_eq!(found, out[here], "{element:?} {kernel:?}");
            }
        }
    });
}

#[test]
fn spans_that_lie_are_refused() {
    let span =
        |row_start, rows, entry| LoraSpan { row_start, rows, entry, kernel: LoraKernel::Tiles };
    let check = |spans: &[LoraSpan]| Step::new(spans, &[4, 0, 300], ElementType::F16).is_ok();
    assert!(check(&[]));
    assert!(check(&[span(0, 3, 0), span(3, 1, 2)]));
    assert!(!check(&[span(0, 3, 0), span(2, 1, 2)]), "overlap");
    assert!(!check(&[span(0, 3, 3)]), "no such entry");
    assert!(!check(&[span(0, 3, 1)]), "an entry without an adapter");
    assert!(!check(&[span(usize::MAX, 3, 0)]));
    let step = Step::new(&[span(0, 17, 2)], &[4, 0, 300], ElementType::F16).unwrap();
    assert_eq!((step.hidden_len, step.rows), (17 * 300, 17));
    // Two tiles of ten pieces for shrink, two for expand.
    assert_eq!(step.items.len(), 22);
}
