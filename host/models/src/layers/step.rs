//! What all layers of one forward share: rows in order of adapter, where their keys go, their
//! angles. Computed once per step.

use std::collections::HashMap;
use std::sync::Arc;

use kernels::{KvGeometry, LoraPair, LoraSegment, PagedPlan, PagedSpan, RopeAngles, RopeTable};
use lora::Adapter;

use crate::{ForwardBatch, ModelError};

/// Rows that share an adapter.
struct AdapterRows {
    row_start: usize,
    rows: usize,
    adapter: Arc<Adapter>,
}

/// One step, with sequences reordered so that each adapter's rows lie together.
pub(crate) struct Step {
    /// Token of each row.
    pub(crate) tokens: Vec<u32>,
    /// Rows whose logits are wanted, in the order wanted.
    pub(crate) logits_rows: Vec<u32>,
    /// The same for hidden states.
    pub(crate) hidden_rows: Vec<u32>,
    /// Where keys and values of each row go, and what it attends to.
    pub(crate) plan: PagedPlan,
    /// Rotary angles of each row.
    angles: RopeAngles,
    /// The same for layers with a window, where they are others.
    local_angles: Option<RopeAngles>,
    segments: Vec<AdapterRows>,
    /// Whose part of each adapter is applied.
    rank: usize,
}

impl Step {
    /// Orders the rows of a valid batch, for one rank.
    pub(crate) fn new(
        batch: &ForwardBatch,
        (rope, local_rope): (&RopeTable, Option<&RopeTable>),
        (geometry, rank): (&KvGeometry, usize),
    ) -> Result<Self, ModelError> {
        let order = by_adapter(batch);
        let mut new_row = vec![0; batch.tokens.len()];
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut spans, mut segments) = (Vec::new(), Vec::<AdapterRows>::new());
        for index in order {
            let span = &batch.sequences[index];
            let rows = span.token_start..span.token_start + span.token_count;
            let row_start = tokens.len();
            for (offset, row) in rows.clone().enumerate() {
                new_row[row] = (row_start + offset) as u32;
            }
            tokens.extend_from_slice(&batch.tokens[rows.clone()]);
            positions.extend_from_slice(&batch.positions[rows]);
            spans.push(PagedSpan {
                row_start,
                rows: span.token_count,
                context_len: span.context_len,
                block_table: span.block_table.clone(),
            });
            let Some(adapter) = &batch.adapters[index] else { continue };
            match segments.last_mut() {
                Some(last) if last.adapter.generation() == adapter.generation() => {
                    last.rows += span.token_count;
                }
                _ => segments.push(AdapterRows {
                    row_start,
                    rows: span.token_count,
                    adapter: Arc::clone(adapter),
                }),
            }
        }
        let moved = |rows: &[u32]| rows.iter().map(|row| new_row[*row as usize]).collect();
        Ok(Self {
            logits_rows: moved(&batch.logits_rows),
            hidden_rows: moved(&batch.hidden_rows),
            plan: PagedPlan::new(spans, geometry)?,
            angles: rope.angles(&positions),
            local_angles: local_rope.map(|rope| rope.angles(&positions)),
            tokens,
            segments,
            rank,
        })
    }

    /// Rotary angles of each row, in a layer with the local rope or another.
    pub(crate) fn angles(&self, local: bool) -> &RopeAngles {
        self.local_angles.as_ref().filter(|_| local).unwrap_or(&self.angles)
    }

    /// What adapters have for some modules, a module after the other.
    pub(crate) fn pairs(&self, modules: &[usize]) -> Vec<&LoraPair> {
        let of = |module: &usize| {
            let module = *module;
            self.segments.iter().filter_map(move |segment| segment.adapter.part(module, self.rank))
        };
        modules.iter().flat_map(of).collect()
    }

    /// The segments whose adapter changes a module.
    pub(crate) fn segments(&self, module: usize) -> Vec<LoraSegment<'_>> {
        self.segments
            .iter()
            .filter_map(|segment| {
                let pair = segment.adapter.part(module, self.rank)?;
                Some(LoraSegment { row_start: segment.row_start, rows: segment.rows, pair })
            })
            .collect()
    }
}

/// Indices of the sequences, those without adapter first, then adapter by adapter in order of first
/// appearance.
fn by_adapter(batch: &ForwardBatch) -> Vec<usize> {
    let mut groups = HashMap::new();
    let group: Vec<usize> = batch
        .adapters
        .iter()
        .map(|adapter| match adapter {
            None => 0,
            Some(adapter) => {
                let next = groups.len() + 1;
                *groups.entry(adapter.generation()).or_insert(next)
            }
        })
        .collect();
    let mut order: Vec<usize> = (0..batch.sequences.len()).collect();
    order.sort_by_key(|index| group[*index]);
    order
}
