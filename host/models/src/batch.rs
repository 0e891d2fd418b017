//! The packed batch of one step: tokens of many sequences, prefill and decode together.
//!
//! Plain data, checked once by [`ForwardBatch::validate`]; it never says why a token runs now, that
//! is the scheduler's affair.

use std::sync::Arc;

use crate::error::BatchError;

/// Rows of one sequence in a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSpan {
    /// Index of the first row in [`ForwardBatch::tokens`].
    pub token_start: usize,
    /// Rows of this sequence in this step, at least one.
    pub token_count: usize,
    /// Tokens of the sequence after this step, the rows of this step included.
    pub context_len: usize,
    /// KV block of each `block_tokens` positions, in order of position. It covers at least
    /// `context_len` positions.
    pub block_table: Vec<u32>,
}

/// Input of one forward pass.
///
/// Spans lie one after another and cover all rows; the positions of a span end at
/// `context_len - 1`. No two sequences write the same block.
#[derive(Clone, Debug, Default)]
pub struct ForwardBatch {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// Position of each row in its sequence, from zero.
    pub positions: Vec<u32>,
    /// One span per sequence.
    pub sequences: Vec<SequenceSpan>,
    /// Adapter of each sequence, `None` for the base model alone.
    pub adapters: Vec<Option<Arc<lora::Adapter>>>,
    /// Rows whose logits are wanted, as indices into `tokens`. The result has them in this order.
    pub logits_rows: Vec<u32>,
    /// Rows whose last hidden states are wanted, as indices into `tokens`; see
    /// [`crate::CausalLm::forward_hidden`].
    pub hidden_rows: Vec<u32>,
}

/// Bounds that a batch is checked against.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Positions are below this.
    pub positions_max: usize,
    /// Blocks in the KV cache.
    pub kv_blocks: usize,
    /// Positions per block.
    pub block_tokens: usize,
}

impl ForwardBatch {
    /// Checks everything that later code indexes by.
    ///
    /// # Errors
    /// The first inconsistency, with the row or sequence it is in.
    pub fn validate(&self, limits: &BatchLimits) -> Result<(), BatchError> {
        self.validate_rows(limits)?;
        if self.adapters.len() != self.sequences.len() {
            return Err(BatchError::Lengths {
                what: "adapters",
                expected: self.sequences.len(),
                found: self.adapters.len(),
            });
        }
        let mut row = 0;
        for (sequence, span) in self.sequences.iter().enumerate() {
            if span.token_start != row || span.token_count == 0 {
                return Err(BatchError::Span { sequence, expected_start: row });
            }
            row = span
                .token_start
                .checked_add(span.token_count)
                .filter(|end| *end <= self.tokens.len())
                .ok_or(BatchError::Span { sequence, expected_start: row })?;
            self.validate_span(sequence, span, limits)?;
        }
        if row != self.tokens.len() {
            return Err(BatchError::Lengths {
                what: "rows covered by spans",
                expected: self.tokens.len(),
                found: row,
            });
        }
        Ok(())
    }

    fn validate_rows(&self, limits: &BatchLimits) -> Result<(), BatchError> {
        if self.positions.len() != self.tokens.len() {
            return Err(BatchError::Lengths {
                what: "positions",
                expected: self.tokens.len(),
                found: self.positions.len(),
            });
        }
        for (row, &token) in self.tokens.iter().enumerate() {
            if token as usize >= limits.vocab_size {
                return Err(BatchError::Token { row, token, vocab_size: limits.vocab_size });
            }
        }
        for &row in self.logits_rows.iter().chain(&self.hidden_rows) {
            if row as usize >= self.tokens.len() {
                return Err(BatchError::WantedRow { row, rows: self.tokens.len() });
            }
        }
        Ok(())
    }

    fn validate_span(
        &self,
        sequence: usize,
        span: &SequenceSpan,
        limits: &BatchLimits,
    ) -> Result<(), BatchError> {
        let rows = span.token_start..span.token_start + span.token_count;
        let first = span.context_len.checked_sub(span.token_count);
        let consecutive = first.is_some_and(|first| {
            self.positions[rows].iter().enumerate().all(|(i, &p)| p as usize == first + i)
        });
        if !consecutive || span.context_len > limits.positions_max {
            return Err(BatchError::Positions {
                sequence,
                context_len: span.context_len,
                positions_max: limits.positions_max,
            });
        }
        let needed = span.context_len.div_ceil(limits.block_tokens);
        let in_cache = span.block_table.iter().all(|&block| (block as usize) < limits.kv_blocks);
        if span.block_table.len() < needed || !in_cache {
            return Err(BatchError::BlockTable {
                sequence,
                needed,
                found: span.block_table.len(),
                kv_blocks: limits.kv_blocks,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits =
        BatchLimits { vocab_size: 10, positions_max: 20, kv_blocks: 4, block_tokens: 8 };

    fn span(
        token_start: usize,
        token_count: usize,
        context_len: usize,
        block_table: &[u32],
    ) -> SequenceSpan {
        SequenceSpan { token_start, token_count, context_len, block_table: block_table.to_vec() }
    }

    /// Two sequences: positions 7, 8 of one, position 0 of another.
    fn batch() -> ForwardBatch {
        ForwardBatch {
            tokens: vec![9, 0, 1],
            positions: vec![7, 8, 0],
            sequences: vec![span(0, 2, 9, &[3, 0]), span(2, 1, 1, &[1])],
            adapters: vec![None, None],
            logits_rows: vec![2, 1],
            hidden_rows: vec![0],
        }
    }

    #[test]
    fn batches_that_lie_are_refused() {
        type Change = fn(&mut ForwardBatch);
        assert_eq!(batch().validate(&LIMITS), Ok(()));
        assert_eq!(ForwardBatch::default().validate(&LIMITS), Ok(()));
        let changes: [(Change, &str); 17] = [
            (|b| b.tokens[0] = 10, "token 10"),
            (|b| b.positions[2] = 1, "sequence 1: positions"),
            (|b| b.positions[0] = 8, "sequence 0: positions"),
            (|b| b.positions.truncate(2), "positions: expected 3, found 2"),
            (|b| b.adapters.truncate(1), "adapters"),
            (|b| b.logits_rows.push(3), "row 3"),
            (|b| b.hidden_rows.push(3), "row 3"),
            (
                |b| {
                    b.sequences.truncate(1);
                    b.adapters.truncate(1);
                },
                "rows covered by spans",
            ),
            (|b| b.sequences[1].token_start = 1, "sequence 1: span"),
            (|b| b.sequences[1].token_count = 2, "sequence 1: span"),
            (|b| b.sequences[1].token_count = usize::MAX, "sequence 1: span"),
            (|b| b.sequences[1].token_count = 0, "sequence 1: span"),
            (|b| b.sequences[1].context_len = 0, "sequence 1: positions"),
            (|b| b.sequences[0].context_len = usize::MAX, "sequence 0: positions"),
            (|b| b.sequences[0].block_table.truncate(1), "needs 2 blocks"),
            (|b| b.sequences[1].block_table[0] = 4, "sequence 1: needs 1 blocks below 4"),
            (|b| b.sequences[1].block_table.clear(), "sequence 1: needs 1 blocks"),
        ];
        for (change, expect) in changes {
            let mut batch = batch();
            change(&mut batch);
            let error = batch.validate(&LIMITS).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn the_last_position_is_usable_and_none_after_it() {
        let at = |position: u32| ForwardBatch {
            tokens: vec![0],
            positions: vec![position],
            sequences: vec![span(0, 1, position as usize + 1, &[0, 1, 2])],
            adapters: vec![None],
            logits_rows: vec![],
            hidden_rows: vec![],
        };
        assert_eq!(at(18).validate(&LIMITS), Ok(()));
        assert_eq!(at(19).validate(&LIMITS), Ok(()));
        assert!(matches!(at(20).validate(&LIMITS), Err(BatchError::Positions { .. })));
    }
}
