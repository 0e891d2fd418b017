//! Which rows of a step belong to which sequence, and where their keys and values go. Checked once
//! per step, so that the ops of all layers may index without asking again.

use super::KvGeometry;
use crate::KernelError;
use crate::on_device::Memo;

const OP: &str = "paged plan";

/// Rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedSpan {
    /// First row.
    pub row_start: usize,
    /// Rows, at least one.
    pub rows: usize,
    /// Positions of the sequence, these rows being the last of them.
    pub context_len: usize,
    /// Block of each `block_tokens` positions.
    pub block_table: Vec<u32>,
}

/// The rows of a step.
#[derive(Clone, Debug)]
pub struct PagedPlan {
    pub(crate) spans: Vec<PagedSpan>,
    /// Per row: index of its span, and its position.
    rows: Vec<(u32, u32)>,
    /// Per row: block times `block_tokens` plus offset.
    slots: Vec<usize>,
    geometry: KvGeometry,
    /// Of a device that the step runs on.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "for devices alone"))]
    memo: Memo,
}

impl PagedPlan {
    /// A plan for spans that lie one after another from row zero.
    ///
    /// # Errors
    /// A span that is empty, out of place or longer than its context; a block table that is too
    /// short or names a block that is not there.
    pub fn new(spans: Vec<PagedSpan>, geometry: &KvGeometry) -> Result<Self, KernelError> {
        let (mut rows, mut slots) = (Vec::new(), Vec::new());
        for (index, span) in spans.iter().enumerate() {
            check(span, rows.len(), geometry)?;
            let first = span.context_len - span.rows;
            for position in first..span.context_len {
                let block = span.block_table[position / geometry.block_tokens] as usize;
                rows.push((index as u32, position as u32));
                slots.push(block * geometry.block_tokens + position % geometry.block_tokens);
            }
        }
        Ok(Self { spans, rows, slots, geometry: *geometry, memo: Memo::default() })
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn memo(&self) -> &Memo {
        &self.memo
    }

    /// Slot of each row.
    pub(crate) fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Block table of a row, and its position.
    pub(crate) fn row(&self, row: usize) -> (&[u32], usize) {
        let (span, position) = self.rows[row];
        (&self.spans[span as usize].block_table, position as usize)
    }

    pub(crate) fn check_geometry(
        &self,
        op: &'static str,
        geometry: &KvGeometry,
    ) -> Result<(), KernelError> {
        if *geometry == self.geometry {
            return Ok(());
        }
        let sizes = |g: &KvGeometry| vec![g.blocks, g.block_tokens, g.kv_heads, g.head_dim];
        let (expected, found) = (sizes(&self.geometry), sizes(geometry));
        Err(KernelError::Shape { op, operand: "blocks", expected, found })
    }
}

fn check(span: &PagedSpan, row: usize, geometry: &KvGeometry) -> Result<(), KernelError> {
    let bound = |what, value, bound| Err(KernelError::Bound { op: OP, what, value, bound });
    if span.row_start != row {
        return bound("first row of a span", span.row_start, row);
    }
    if span.rows == 0 {
        return Err(KernelError::Size { op: OP, what: "span without rows" });
    }
    if span.rows > span.context_len {
        return bound("rows of a span", span.rows, span.context_len);
    }
    if u32::try_from(span.context_len).is_err() {
        return bound("context length", span.context_len, u32::MAX as usize);
    }
    let needed = span.context_len.div_ceil(geometry.block_tokens);
    if span.block_table.len() < needed {
        return bound("blocks needed", needed, span.block_table.len());
    }
    match span.block_table.iter().find(|block| **block as usize >= geometry.blocks) {
        Some(block) => bound("block", *block as usize, geometry.blocks),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_lie_are_refused() {
        let geometry = KvGeometry {
            blocks: 4,
            block_tokens: 8,
            kv_heads: 1,
            head_dim: 2,
            format: crate::KvFormat::F32,
        };
        let span = |row_start, rows, context_len, block_table: &[u32]| PagedSpan {
            row_start,
            rows,
            context_len,
            block_table: block_table.to_vec(),
        };
        let check = |spans: Vec<PagedSpan>| PagedPlan::new(spans, &geometry).is_ok();
        assert!(check(vec![]));
        assert!(check(vec![span(0, 8, 8, &[3])]));
        assert!(check(vec![span(0, 2, 9, &[3, 0]), span(2, 1, 1, &[1, 2])]));
        assert!(!check(vec![span(0, 1, 9, &[3])]), "a block short");
        assert!(!check(vec![span(0, 1, 8, &[4])]), "a block too high");
        assert!(!check(vec![span(0, 0, 8, &[1])]), "no rows");
        assert!(!check(vec![span(0, 9, 8, &[1, 2])]), "more rows than context");
        assert!(!check(vec![span(1, 1, 8, &[1])]), "a gap");
        assert!(!check(vec![span(0, 1, usize::MAX, &[1])]), "a length that lies");
    }
}
