//! Products of one input with several weights, and what adapters add to each, in as few rounds of the
//! pool as the data allows: activations are rounded once, the first halves of LoRA run before the base
//! products in the same round, and whoever computes a tile of a base product adds the second halves to
//! it while it is in the cache. Adapters lie apart in memory, so what a tile will need of them, and what
//! the next group begins with, is asked for while the base product is computed.

use std::cell::OnceCell;

use candle_core::Tensor;

use super::{OP, PackedLinear, QuantizedRows, Rows};
use crate::dispatch::{Level, level};
use crate::ops::columns::{Lead, Output, for_tiles_after};
use crate::ops::lora_expand::{expand_tile, spans_of_tile};
use crate::ops::lora_shrink::{Shrinks, check_segments, floats};
use crate::pool::{Shares, threads};
use crate::prefetch::Ahead;
use crate::tensor::{Place, from_host, host_floats, place, rows};
use crate::{KernelError, LoraPair, LoraSegment};

/// Fewest rows for which the next tile's weights are asked for: fewer do nothing but wait for memory,
/// and the processor sees by itself which way a weight goes.
const AHEAD_ROWS_MIN: usize = 4;

/// Rows that several products share: what is derived from them is derived once.
pub struct LinearInput<'a> {
    x: &'a Tensor,
    quantized: OnceCell<QuantizedRows>,
}

impl<'a> LinearInput<'a> {
    /// The rows of `x`, f32 `[rows, in_features]`.
    #[must_use]
    pub fn new(x: &'a Tensor) -> Self {
        Self { x, quantized: OnceCell::new() }
    }

    fn quantized(&self, x: &[f32], depth: usize) -> &QuantizedRows {
        self.quantized.get_or_init(|| QuantizedRows::of(x, depth))
    }
}

/// One product of a group.
#[derive(Debug)]
pub struct GroupMember<'a> {
    /// The weight.
    pub linear: &'a PackedLinear,
    /// Rows with an adapter, in order.
    pub segments: Vec<LoraSegment<'a>>,
}

/// `x Wᵀ + b` of each member, `[rows, out_features]` in f32, plus `scale * (x Aᵀ) Bᵀ` for the rows of its
/// segments. `next` are the pairs that will be used soon after: their `A` is asked for meanwhile.
///
/// # Errors
/// An operand of another shape or type, segments that overlap, are out of order or outside the rows,
/// a pair of other widths than its weight, or a device this build can't use.
pub fn linear_group(
    input: &LinearInput<'_>,
    members: &[GroupMember<'_>],
    next: &[&LoraPair],
) -> Result<Vec<Tensor>, KernelError> {
    let depth = input.x.dims().last().copied().unwrap_or(0);
    let mut found = 0;
    for member in members {
        let linear = member.linear;
        found = rows(OP, "x", input.x, linear.in_features)?;
        check_segments(OP, &member.segments, found, |pair| (pair.in_features(), depth))?;
        let width = linear.out_features;
        check_segments(OP, &member.segments, found, |pair| (pair.out_features(), width))?;
    }
    if place(OP, input.x.device())? == Place::Cuda {
        return on_device(input.x, members);
    }
    let x = host_floats(OP, "x", input.x)?;
    let mut floats: Vec<Vec<f32>> =
        members.iter().map(|member| vec![0.0; found * member.linear.out_features]).collect();
    let mut outputs: Vec<Output<'_>> = floats
        .iter_mut()
        .zip(members)
        .map(|(floats, member)| Output { floats, width: member.linear.out_features })
        .collect();
    products(level(), (input, x.as_slice()?, found), (members, next), &mut outputs);
    let shaped = floats.into_iter().zip(members);
    shaped.map(|(floats, member)| from_host(floats, (found, member.linear.out_features))).collect()
}

/// The same on a device.
fn on_device(x: &Tensor, members: &[GroupMember<'_>]) -> Result<Vec<Tensor>, KernelError> {
    let product = |GroupMember { linear, segments }: &GroupMember<'_>| {
        let device = x.device().location();
        let held = linear.on_device().ok_or(KernelError::Device { op: OP, device })?;
        let y = held.forward(x)?;
        crate::on_device::add_adapters(held, (x, &y), segments)?;
        Ok(y)
    };
    members.iter().map(product).collect()
}

/// The work behind [`linear_group`], on checked operands.
pub(super) fn products(
    level: Level,
    (input, x, rows): (&LinearInput<'_>, &[f32], usize),
    (members, next): (&[GroupMember<'_>], &[&LoraPair]),
    outputs: &mut [Output<'_>],
) {
    let Some(depth) = members.first().map(|member| member.linear.in_features) else { return };
    let prepared: Vec<Rows<'_>> = members
        .iter()
        .map(|member| match member.linear.is_quantized() {
            true => Rows::Quantized(input.quantized(x, depth)),
            false => Rows::Float(x),
        })
        .collect();
    let lists: Vec<&[LoraSegment<'_>]> =
        members.iter().map(|member| member.segments.as_slice()).collect();
    let mut hidden: Vec<Vec<f32>> = lists.iter().map(|list| vec![0.0; floats(list)]).collect();
    let shrinks = Shrinks::new(level, x, &lists, &mut hidden);
    let lead = Lead { tasks: shrinks.tasks(), run: |_| shrinks.run() };
    let (asked, threads) = (Shares::of(next.len()), threads());
    for_tiles_after(&lead, outputs, (rows, depth), |member, tile, turn, columns| {
        let GroupMember { linear, segments } = &members[member];
        let ours = spans_of_tile(segments, tile);
        let later = next[asked.advance(turn.index + threads, turn.of)].iter();
        let later = later.map(|pair| pair.a_span());
        let then = turn.then.filter(|_| rows >= AHEAD_ROWS_MIN);
        let then = then.map(|(member, tile)| members[member].linear.spans(tile));
        let mut spans = ours.chain(later).chain(then.into_iter().flatten());
        let lines = spans.clone().map(|span| span.lines()).sum();
        let mut ahead = Ahead::new(lines, &mut spans);
        linear.product(level, &prepared[member], tile, (columns, &mut ahead));
        if !segments.is_empty() {
            expand_tile(level, shrinks.hidden(member), segments, tile, columns);
        }
    });
}
