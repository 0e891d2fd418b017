//! A postprocessor that misbehaves in the middle of a stream, if the model is called so: `loop` never
//! returns, `trap` panics, `flood` replaces a piece by 8 MiB.

#![forbid(unsafe_code)]

use std::hint::black_box;

use mortise_sdk::{Action, Postprocessor, RequestInfo, Result};

const FLOOD_BYTES: usize = 8 << 20;
/// Pieces that pass first, so that the fault falls into a stream that has begun.
const CALM_PIECES: u32 = 3;

#[derive(Default)]
struct Hostile {
    model: String,
    pieces: u32,
}

mortise_sdk::export!(postprocessor: Hostile);

impl Postprocessor for Hostile {
    fn new() -> Result<Self> {
        Ok(Self::default())
    }

    fn open(&mut self, request: &RequestInfo) -> Result<()> {
        *self = Self { model: request.model.clone(), pieces: 0 };
        Ok(())
    }

    fn push(&mut self, _text: String) -> Result<Action> {
        self.pieces += 1;
        if self.pieces <= CALM_PIECES {
            return Ok(Action::Pass);
        }
        match self.model.as_str() {
            "loop" => {
                let mut turns = 0_u64;
                loop {
                    turns = black_box(turns.wrapping_add(1));
                }
            }
            "trap" => panic!("a trap was asked for"),
            "flood" => Ok(Action::Replace("x".repeat(FLOOD_BYTES))),
            _ => Ok(Action::Pass),
        }
    }

    fn finish(&mut self, _finish_reason: &str) -> Result<String> {
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use mortise_sdk::testing::Harness;

    use super::*;

    #[test]
    fn it_is_harmless_without_a_trigger() {
        let read = Harness::new().stream_all::<Hostile>(["a", "loop", "trap", "flood", "b"]);
        assert_eq!(read, Ok("alooptrapfloodb".to_owned()));
    }
}
