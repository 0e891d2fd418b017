//! What a sequence's next token may be, as data that someone else computes while the model runs. The
//! engine reads a mask per token and tells the token it chose; it knows no grammar.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use request::TokenId;
use tokio::sync::mpsc;

/// Longest wait for a mask. It is computed beside the forward, and bounded where it is computed; one
/// that takes this long fails its sequence rather than hold up the others.
const MASK_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the next token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Bit `id % 32` of word `id / 32` is set for each token that may come.
    Allowed(Vec<u32>),
    /// None may: the answer is complete.
    Done,
    /// No mask can be told, and why.
    Failed(String),
}

/// The engine's end: one mask in, one token out, in turn.
#[derive(Debug)]
pub struct Constraint {
    masks: Receiver<Mask>,
    tokens: mpsc::Sender<TokenId>,
}

/// The end of who computes the masks.
#[derive(Debug)]
pub struct ConstraintDriver {
    masks: SyncSender<Mask>,
    tokens: mpsc::Receiver<TokenId>,
}

/// Both ends. Masks and tokens alternate, so each channel holds one.
#[must_use]
pub fn constraint() -> (Constraint, ConstraintDriver) {
    let (masks, masks_out) = sync_channel(1);
    let (tokens, tokens_out) = mpsc::channel(1);
    let engine = Constraint { masks: masks_out, tokens };
    (engine, ConstraintDriver { masks, tokens: tokens_out })
}

impl Constraint {
    /// Forbids in `logits` `[vocab]` what may not come. `None` if the answer is complete.
    pub(crate) fn apply(&self, logits: &mut [f32]) -> Result<Option<()>, String> {
        let words = match self.masks.recv_timeout(MASK_WAIT_MAX) {
            Ok(Mask::Allowed(words)) => words,
            Ok(Mask::Done) => return Ok(None),
            Ok(Mask::Failed(reason)) => return Err(format!("the grammar failed: {reason}")),
            Err(_) => return Err("no mask came for the next token".to_owned()),
        };
        let is_set = |id: usize| words.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
        let mut left = false;
        for (id, logit) in logits.iter_mut().enumerate() {
            match is_set(id) {
                true => left |= *logit > f32::NEG_INFINITY,
                false => *logit = f32::NEG_INFINITY,
            }
        }
        if left { Ok(Some(())) } else { Err("the grammar leaves no token to choose".to_owned()) }
    }

    /// Tells the token that was chosen.
    pub(crate) fn tell(&self, token: TokenId) {
        // There is room, because a mask came between; who computes may have left with the client.
        let _ = self.tokens.try_send(token);
    }
}

impl ConstraintDriver {
    /// Sends the mask of the next token; false if the sequence has ended.
    #[must_use]
    pub fn send(&self, mask: Mask) -> bool {
        // There is room, because a token came between.
        self.masks.try_send(mask).is_ok()
    }

    /// The token that was chosen; `None` once the sequence has ended.
    pub async fn next(&mut self) -> Option<TokenId> {
        self.tokens.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(mask: Mask) -> Result<Option<Vec<f32>>, String> {
        let (engine, driver) = constraint();
        assert!(driver.send(mask));
        let mut logits: Vec<f32> = (0..40).map(|id| id as f32).collect();
        Ok(engine.apply(&mut logits)?.map(|()| logits))
    }

    #[test]
    fn masks_leave_what_they_allow() {
        let logits = apply(Mask::Allowed(vec![1 << 3, 1 << 7])).expect("a mask").expect("tokens");
        let left: Vec<usize> = (0..40).filter(|id| logits[*id].is_finite()).collect();
        assert_eq!(left, [3, 39]);
        // Words that are missing allow nothing.
        let logits = apply(Mask::Allowed(vec![2])).expect("a mask").expect("tokens");
        assert_eq!(logits.iter().filter(|logit| logit.is_finite()).count(), 1);
        assert_eq!(apply(Mask::Done), Ok(None));
        assert!(apply(Mask::Allowed(vec![0, 0])).is_err(), "nothing is left");
        assert!(apply(Mask::Failed("why".to_owned())).is_err_and(|error| error.contains("why")));
    }

    #[test]
    fn an_end_that_leaves_ends_the_other() {
        let (engine, driver) = constraint();
        drop(driver);
        assert!(engine.apply(&mut [0.0]).is_err());
        let (engine, driver) = constraint();
        drop(engine);
        assert!(!driver.send(Mask::Done));
    }
}
