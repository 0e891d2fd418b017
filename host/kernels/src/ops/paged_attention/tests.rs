//! Attention against its specification, against plain arithmetic, and against itself in other
//! company.

use candle_core::Device;

use super::*;
use crate::ops::testing::{Random, assert_same_bits, on_levels};
use crate::{KvFormat, KvGeometry, PagedSpan, kv_write};

type Rows = (usize, Vec<f32>, Vec<f32>, Vec<f32>);
/// Window and soft limit.
type Limits = (Option<usize>, Option<f32>);

/// Keys and values of some sequences, whole.
struct Sequences {
    geometry: KvGeometry,
    heads: usize,
    /// Per sequence: length, q, k, v, each `[length][..]`.
    data: Vec<Rows>,
}

impl Sequences {
    fn new(random: &mut Random, geometry: KvGeometry, heads: usize, lengths: &[usize]) -> Self {
        let (q, kv) = (heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim);
        let data = lengths
            .iter()
            .map(|&n| (n, random.floats(n * q), random.floats(n * kv), random.floats(n * kv)))
            .collect();
        Self { geometry, heads, data }
    }

    /// Runs the steps, each a list of (sequence, rows), and returns the outputs per sequence.
    fn run(
        &self,
        level: Level,
        (window, softcap): Limits,
        tables: &[Vec<u32>],
        steps: &[Vec<(usize, usize)>],
    ) -> Vec<Vec<f32>> {
        let g = self.geometry;
        let (q_width, kv_width) = (self.heads * g.head_dim, g.kv_heads * g.head_dim);
        let mut blocks = KvBlocks::new(g, &Device::Cpu).unwrap();
        let mut done = vec![0; self.data.len()];
        let mut outputs = vec![Vec::new(); self.data.len()];
        for step in steps {
            let (mut q, mut k, mut v, mut spans) = (vec![], vec![], vec![], vec![]);
            let mut row_start = 0;
            for &(index, rows) in step {
                let range = done[index]..done[index] + rows;
                let data = &self.data[index];
                q.extend(&data.1[range.start * q_width..range.end * q_width]);
                k.extend(&data.2[range.start * kv_width..range.end * kv_width]);
                v.extend(&data.3[range.start * kv_width..range.end * kv_width]);
                let (context_len, block_table) = (range.end, tables[index].clone());
                spans.push(PagedSpan { row_start, rows, context_len, block_table });
                done[index] += rows;
                row_start += rows;
            }
            let plan = PagedPlan::new(spans, &g).unwrap();
            let k = from_host(k, (row_start, kv_width)).unwrap();
            let v = from_host(v, (row_start, kv_width)).unwrap();
            kv_write(&k, &v, &plan, &mut blocks).unwrap();
            let mut out = vec![f32::NAN; q.len()];
            let scale = 1.0 / (g.head_dim as f32).sqrt();
            let shape = AttentionShape { heads: self.heads, window, scale, softcap };
            on_rows(level, &q, &blocks, &plan, (&shape, &mut out));
            let mut rest = out.as_slice();
            for &(index, rows) in step {
                let (rows, after) = rest.split_at(rows * q_width);
                outputs[index].extend(rows);
                rest = after;
            }
        }
        outputs
    }

    /// The same in f64 without blocks.
    fn expected(&self, index: usize, (window, softcap): Limits) -> Vec<f64> {
        let g = self.geometry;
        let (length, q, k, v) = &self.data[index];
        let group = self.heads / g.kv_heads;
        let mut out = Vec::new();
        for row in 0..*length {
            let first = window.map_or(0, |window| (row + 1).saturating_sub(window));
            for head in 0..self.heads {
                let at = |x: &[f32], position: usize, head: usize, heads: usize, d: usize| {
                    f64::from(x[(position * heads + head) * g.head_dim + d])
                };
                let score = |position: usize| {
                    let dot: f64 = (0..g.head_dim)
                        .map(|d| {
                            at(q, row, head, self.heads, d)
                                * at(k, position, head / group, g.kv_heads, d)
                        })
                        .sum();
                    let score = dot / (g.head_dim as f64).sqrt();
                    let cap = |cap: f32| f64::from(cap) * (score / f64::from(cap)).tanh();
                    softcap.map_or(score, cap).exp()
                };
                let weights: Vec<f64> = (first..=row).map(score).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..g.head_dim {
                    let sum: f64 = (first..=row)
                        .zip(&weights)
                        .map(|(position, w)| w * at(v, position, head / group, g.kv_heads, d))
                        .sum();
                    out.push(sum / total);
                }
            }
        }
        out
    }
}

fn tables(random: &mut Random, geometry: &KvGeometry, lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut free: Vec<u32> = (0..geometry.blocks as u32).collect();
    lengths
        .iter()
        .map(|n| {
            (0..n.div_ceil(geometry.block_tokens))
                .map(|_| free.swap_remove(random.below(free.len())))
                .collect()
        })
        .collect()
}

#[test]
fn is_attention_at_every_level_whatever_the_blocks_and_chunks() {
    let mut random = Random::new(8);
    let lengths = [37, 1, 70, 18];
    for (heads, kv_heads, head_dim, limits) in [
        (1, 1, 2, (None, Some(0.3))),
        (4, 2, 16, (None, None)),
        (7, 1, 24, (Some(5), Some(0.1))),
        (6, 2, 64, (Some(33), None)),
        (10, 2, 80, (None, Some(50.0))),
        (4, 4, 128, (Some(1), None)),
    ] {
        let format = KvFormat::F32;
        let geometry = KvGeometry { blocks: 64, block_tokens: 16, kv_heads, head_dim, format };
        let sequences = Sequences::new(&mut random, geometry, heads, &lengths);
        let cases = [KvFormat::F32, KvFormat::F16, KvFormat::Int8]
            .map(|format| [16, 5, 48].map(|block_tokens| (format, block_tokens)));
        let mut reference: Option<(KvFormat, Vec<f32>)> = None;
        for (format, block_tokens) in cases.concat() {
            let geometry = KvGeometry { block_tokens, format, ..geometry };
            let bound = match format {
                KvFormat::F32 => 1e-5,
                KvFormat::F16 => 1e-3,
                KvFormat::Int8 => 1e-2,
            };
            let sequences = Sequences { geometry, data: sequences.data.clone(), heads };
            let tables = tables(&mut random, &geometry, &lengths);
            let whole = vec![(0..4).map(|i| (i, lengths[i])).collect::<Vec<_>>()];
            let chunks = vec![
                vec![(2, 7), (0, 36)],
                vec![(1, 1), (2, 30), (3, 17)],
                vec![(3, 1), (0, 1), (2, 33)],
            ];
            for steps in [whole, chunks] {
                let out = on_levels(|level| sequences.run(level, limits, &tables, &steps).concat());
                let expected: Vec<f64> =
                    (0..4).flat_map(|index| sequences.expected(index, limits)).collect();
                assert_eq!(out.len(), expected.len());
                for (found, expected) in out.iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < bound, "{format:?}");
                }
                match &reference {
                    Some((of, reference)) if *of == format => assert_same_bits(&out, reference),
                    _ => reference = Some((format, out)),
                }
            }
        }
    }
}

#[test]
fn wrong_operands_are_refused() {
    let geometry =
        KvGeometry { blocks: 2, block_tokens: 16, kv_heads: 2, head_dim: 4, format: KvFormat::F32 };
    let blocks = KvBlocks::new(geometry, &Device::Cpu).unwrap();
    let span = PagedSpan { row_start: 0, rows: 1, context_len: 1, block_table: vec![0] };
    let plan = PagedPlan::new(vec![span], &geometry).unwrap();
    let capped = |heads: usize, width: usize, window, softcap| {
        let q = from_host(vec![0.0; width], (1, width)).unwrap();
        let shape = AttentionShape { heads, window, scale: 1.0, softcap };
        paged_attention(&q, &blocks, &plan, &shape).is_ok()
    };
    let check = |heads, width, window| capped(heads, width, window, None);
    assert!(check(4, 16, None));
    assert!(capped(4, 16, None, Some(1.0)));
    for cap in [0.0, -1.0, f32::NAN] {
        assert!(!capped(4, 16, None, Some(cap)));
    }
    assert!(check(4, 16, Some(1)));
    assert!(!check(4, 16, Some(0)));
    assert!(!check(3, 12, None), "not whole groups");
    assert!(!check(0, 0, None));
    assert!(!check(4, 12, None));
}
