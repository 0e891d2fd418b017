//! Attention on every machine, against the scalar specification, and against itself in other company and
//! other chunks.

use candle_core::Device;

use super::step::{Memory, Step, attend};
use super::{AttentionShape, on_rows};
use crate::dispatch::Level;
use crate::launch::ElementType;
use crate::ops::testing::Random;
use crate::tensor::from_host;
use crate::tests::{Machine, assert_close, on_machines, rounded};
use crate::{KvBlocks, KvFormat, KvGeometry, PagedPlan, PagedSpan, kv_write};

/// Contexts with their keys and values in blocks, on the host and as a device has them.
struct Contexts {
    geometry: KvGeometry,
    heads: usize,
    element: ElementType,
    blocks: KvBlocks,
    keys: Vec<f32>,
    values: Vec<f32>,
    tables: Vec<Vec<u32>>,
    queries: Vec<Vec<f32>>,
}

impl Contexts {
    fn new(
        random: &mut Random,
        (heads, kv_heads, head_dim): (usize, usize, usize),
        block_tokens: usize,
        lengths: &[usize],
        element: ElementType,
    ) -> Self {
        let needed: usize = lengths.iter().map(|n| n.div_ceil(block_tokens)).sum();
        let format = KvFormat::F32;
        let geometry = KvGeometry { blocks: needed + 3, block_tokens, kv_heads, head_dim, format };
        let mut free: Vec<u32> = (0..geometry.blocks as u32).collect();
        let mut take = || free.swap_remove(random.below(free.len()));
        let tables: Vec<Vec<u32>> = lengths
            .iter()
            .map(|n| (0..n.div_ceil(block_tokens)).map(|_| take()).collect())
            .collect();
        let mut this = Self {
            geometry,
            heads,
            element,
            blocks: KvBlocks::new(geometry, &Device::Cpu).unwrap(),
            // What no sequence wrote is no number, and must not show.
            keys: vec![f32::NAN; geometry.blocks * kv_heads * block_tokens * head_dim],
            values: vec![f32::NAN; geometry.blocks * kv_heads * block_tokens * head_dim],
            tables,
            queries: Vec::new(),
        };
        for (index, &length) in lengths.iter().enumerate() {
            this.queries.push(rounded(element, &random.floats(length * heads * head_dim)));
            let k = rounded(element, &random.floats(length * kv_heads * head_dim));
            let v = rounded(element, &random.floats(length * kv_heads * head_dim));
            this.write(index, &k, &v);
        }
        this
    }

    fn write(&mut self, index: usize, k: &[f32], v: &[f32]) {
        let g = self.geometry;
        let width = g.kv_heads * g.head_dim;
        let length = k.len() / width;
        for at in 0..k.len() {
            let (position, head, d) = (at / width, at % width / g.head_dim, at % g.head_dim);
            let block = self.tables[index][position / g.block_tokens] as usize;
            let page = (block * g.kv_heads + head) * g.block_tokens * g.head_dim;
            let token = position % g.block_tokens;
            self.keys[page + token * g.head_dim + d] = k[at];
            self.values[page + d * g.block_tokens + token] = v[at];
        }
        let plan = PagedPlan::new(vec![self.span(index, 0, length, length)], &g).unwrap();
        let tensor = |floats: &[f32]| from_host(floats.to_vec(), (length, width)).unwrap();
        kv_write(&tensor(k), &tensor(v), &plan, &mut self.blocks).unwrap();
    }

    fn span(&self, index: usize, row_start: usize, rows: usize, context_len: usize) -> PagedSpan {
        PagedSpan { row_start, rows, context_len, block_table: self.tables[index].clone() }
    }

    /// Spans of (sequence, rows, positions), and their queries.
    fn rows(&self, parts: &[(usize, usize, usize)]) -> (Vec<PagedSpan>, Vec<f32>) {
        let (mut spans, mut q, mut row) = (Vec::new(), Vec::new(), 0);
        let width = self.heads * self.geometry.head_dim;
        for &(index, rows, context_len) in parts {
            spans.push(self.span(index, row, rows, context_len));
            q.extend(&self.queries[index][(context_len - rows) * width..context_len * width]);
            row += rows;
        }
        (spans, q)
    }

    fn shape(&self, window: Option<usize>) -> AttentionShape {
        let scale = 1.0 / (self.geometry.head_dim as f32).sqrt();
        AttentionShape { heads: self.heads, window, scale, softcap: None }
    }

    fn on_machine(
        &self,
        machine: &Machine,
        parts: &[(usize, usize, usize)],
        window: Option<usize>,
        softcap: Option<f32>,
    ) -> Vec<f32> {
        let (spans, q) = self.rows(parts);
        let shape = self.shape(window);
        let step = Step::new(&spans, &self.geometry, &shape, self.element).unwrap();
        let floats = |len: usize| machine.upload(&vec![f32::NAN; len]);
        let (heads, dim) = (self.heads, self.geometry.head_dim);
        let buffers = [
            machine.upload_as(self.element, &q),
            machine.upload_as(self.element, &vec![f32::NAN; q.len()]),
            machine.upload_as(self.element, &self.keys),
            machine.upload_as(self.element, &self.values),
            machine.upload(&step.tables),
            machine.upload(&step.spans),
            machine.upload(&step.items),
            machine.upload(&step.merges),
            floats(step.parts * heads * dim),
            floats(step.parts * heads * 2),
        ];
        let [q, out, keys, values, tables, spans, items, merges, parts, part_sums] =
            std::array::from_fn(|i| buffers[i].ptr());
        let memory =
            Memory { q, out, keys, values, tables, spans, items, merges, parts, part_sums };
        // SAFETY: buffers of the sizes that the step and the geometry say.
        unsafe { attend(machine, &step, &self.geometry, (shape.scale, softcap), &memory) }.unwrap();
        machine.download_as(self.element, &buffers[1])
    }

    fn specification(&self, parts: &[(usize, usize, usize)], window: Option<usize>) -> Vec<f32> {
        let (spans, q) = self.rows(parts);
        let plan = PagedPlan::new(spans, &self.geometry).unwrap();
        let mut out = vec![0.0; q.len()];
        on_rows(Level::Scalar, &q, &self.blocks, &plan, (&self.shape(window), &mut out));
        out
    }
}

/// Weights and results are rounded once each.
fn tolerance(element: ElementType) -> f32 {
    match element {
        ElementType::F32 => 1e-5,
        ElementType::F16 => 2e-3,
        ElementType::Bf16 => 1.2e-2,
    }
}

/// Heads, key heads, width, positions of a block, window.
type Shape = ((usize, usize, usize), usize, Option<usize>);

#[test]
fn is_the_specification_on_every_machine() {
    let halves: [Shape; 6] = [
        ((4, 1, 64), 16, None),
        ((7, 1, 80), 32, Some(5)),
        ((3, 3, 96), 16, Some(33)),
        ((8, 2, 128), 16, None),
        ((2, 1, 256), 48, None),
        ((20, 1, 64), 16, Some(300)),
    ];
    let wholes: [Shape; 3] =
        [((5, 1, 24), 5, Some(7)), ((4, 2, 64), 16, None), ((2, 2, 256), 16, Some(260))];
    let cases =
        halves.iter().flat_map(|shape| [(shape, ElementType::F16), (shape, ElementType::Bf16)]);
    let cases: Vec<_> = cases.chain(wholes.iter().map(|shape| (shape, ElementType::F32))).collect();
    on_machines(|machine| {
        for (seed, &(&(heads, block_tokens, window), element)) in cases.iter().enumerate() {
            let mut random = Random::new(seed as u64 + 1);
            let lengths = [1, 40, 300, 17];
            let contexts = Contexts::new(&mut random, heads, block_tokens, &lengths, element);
            // A first token, a chunk in the middle, single tokens of a short and a long context, a few
            // rows at the end of a long one.
            let parts = [(0, 1, 1), (1, 20, 33), (2, 1, 300), (3, 17, 17), (2, 3, 290), (1, 1, 40)];
            let found = contexts.on_machine(machine, &parts, window, None);
            let expected = contexts.specification(&parts, window);
            let what = format!("{heads:?} {block_tokens} {window:?} {element:?}");
            assert_close(&found, &expected, tolerance(element), &what);
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_any_company_and_chunk() {
    for (element, heads, window) in [
        (ElementType::Bf16, (4, 2, 64), None),
        (ElementType::F16, (3, 1, 64), Some(270)),
        (ElementType::F32, (2, 1, 16), Some(40)),
    ] {
        on_machines(|machine| {
            let mut random = Random::new(77);
            let contexts = Contexts::new(&mut random, heads, 16, &[540, 30], element);
            let width = heads.0 * heads.2;
            // Twelve rows at once, which one thread each folds over three splits.
            let whole = contexts.on_machine(machine, &[(0, 12, 540), (1, 30, 30)], window, None);
            let last = contexts.on_machine(machine, &[(1, 9, 9), (0, 1, 540)], window, None);
            assert_eq!(last[9 * width..], whole[11 * width..12 * width], "alone, spread");
            assert_eq!(last[..9 * width], whole[12 * width..21 * width], "cut shorter");
            let middle = contexts.on_machine(machine, &[(0, 5, 535)], window, None);
            assert_eq!(middle, whole[2 * width..7 * width], "a chunk from within");
        });
    }
}

#[test]
fn scores_bend_towards_the_softcap() {
    on_machines(|machine| {
        for (element, heads) in [(ElementType::F16, (2, 1, 64)), (ElementType::F32, (2, 1, 64))] {
            let contexts = Contexts::new(&mut Random::new(3), heads, 16, &[50], element);
            let parts = [(0, 1, 50)];
            let plain = contexts.on_machine(machine, &parts, None, None);
            // So high that nothing bends, so low that all positions weigh the same.
            let high = contexts.on_machine(machine, &parts, None, Some(1e4));
            assert_close(&high, &plain, tolerance(element), "high");
            let low = contexts.on_machine(machine, &parts, None, Some(1e-4));
            let table = &contexts.tables[0];
            for (d, found) in low[..64].iter().enumerate() {
                let value =
                    |p: usize| contexts.values[(table[p / 16] as usize * 64 + d) * 16 + p % 16];
                let mean = (0..50).map(value).sum::<f32>() / 50.0;
                assert!((found - mean).abs() < 1e-3 + tolerance(element), "{found} {mean}");
            }
        }
    });
}

#[test]
fn sizes_without_code_are_refused() {
    let format = KvFormat::F32;
    let geometry = KvGeometry { blocks: 4, block_tokens: 16, kv_heads: 2, head_dim: 64, format };
    let shape = AttentionShape { heads: 4, window: None, scale: 1.0, softcap: None };
    let check = |geometry: KvGeometry, shape: AttentionShape, element| {
        Step::new(&[], &geometry, &shape, element).is_ok()
    };
    assert!(check(geometry, shape, ElementType::F16));
    assert!(!check(KvGeometry { head_dim: 72, ..geometry }, shape, ElementType::F16));
    assert!(check(KvGeometry { head_dim: 72, ..geometry }, shape, ElementType::F32));
    assert!(!check(KvGeometry { head_dim: 257, ..geometry }, shape, ElementType::F32));
    assert!(!check(KvGeometry { block_tokens: 24, ..geometry }, shape, ElementType::Bf16));
    assert!(!check(geometry, AttentionShape { heads: 3, ..shape }, ElementType::F16));
    assert!(!check(geometry, AttentionShape { window: Some(0), ..shape }, ElementType::F16));
}
