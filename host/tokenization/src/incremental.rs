//! Text from tokens that come one by one: nothing lost, nothing twice, never half a character.

use std::sync::Arc;

use request::TokenId;

use crate::error::TokenizationError;
use crate::tokenizer::Tokenizer;

/// Decodes one stream. What the pushes and the final [`Self::finish`] return is, put together, what
/// decoding all tokens at once would return. (One exception: where byte tokens that make no character
/// follow others that do, decoding all at once loses both; here those that do have been told.)
#[derive(Debug)]
pub struct IncrementalDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes that are not yet a whole character.
    Bytes(Vec<u8>),
    /// For tokenizers whose text depends on neighbours (a leading space that only the first token
    /// loses): the tokens since `prefix` are decoded again each time.
    Window { tokens: Vec<TokenId>, prefix: usize, read: usize },
}

/// A token that brings no whole character for this long is not going to: then what there is comes
/// out, so that a stream of garbage costs linear time.
const HELD_TOKENS_MAX: usize = 16;

impl IncrementalDecoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let state = if tokenizer.concatenates_bytes() {
            State::Bytes(Vec::new())
        } else {
            State::Window { tokens: Vec::new(), prefix: 0, read: 0 }
        };
        Self { tokenizer, skip_special, state }
    }

    /// Takes the next token; returns the text that is complete now, perhaps none.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn push(&mut self, id: TokenId) -> Result<String, TokenizationError> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(held) => {
                held.extend(self.tokenizer.token_bytes(id).unwrap_or_default());
                Ok(take_characters(held))
            }
            State::Window { tokens, .. } => {
                tokens.push(id);
                self.read_window(false)
            }
        }
    }

    /// Ends the stream: half a character that is left becomes U+FFFD.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn finish(&mut self) -> Result<String, TokenizationError> {
        match &mut self.state {
            State::Bytes(held) => {
                let rest = String::from_utf8_lossy(held).into_owned();
                held.clear();
                Ok(rest)
            }
            State::Window { .. } => self.read_window(true),
        }
    }

    fn read_window(&mut self, is_end: bool) -> Result<String, TokenizationError> {
        let State::Window { tokens, prefix, read } = &mut self.state else {
            unreachable!("called for windows only");
        };
        let before = self.tokenizer.decode(&tokens[*prefix..*read], self.skip_special)?;
        let all = self.tokenizer.decode(&tokens[*prefix..], self.skip_special)?;
        let is_whole = !all.ends_with('\u{fffd}') || tokens.len() - *read > HELD_TOKENS_MAX;
        if !is_end && (!is_whole || all.len() <= before.len()) {
            return Ok(String::new());
        }
        let new = match all.strip_prefix(&before) {
            Some(new) => new.to_owned(),
            // Byte fallback decodes a run of bytes as one, so bytes that make no character change the
            // text of those before them, which has been told. The new ones are then read alone.
            None => self.tokenizer.decode(&tokens[*read..], self.skip_special)?,
        };
        // What was read last is the context for what comes next; everything before is done with.
        tokens.drain(..*read);
        (*prefix, *read) = (0, tokens.len());
        Ok(new)
    }
}

/// Takes whole characters off the front of `held`; bytes that can't become one turn into U+FFFD.
fn take_characters(held: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut at = 0;
    loop {
        match std::str::from_utf8(&held[at..]) {
            Ok(whole) => {
                text.push_str(whole);
                at = held.len();
                break;
            }
            Err(error) => {
                let valid = at + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&held[at..valid]));
                at = valid;
                // `None` is the beginning of a character that more bytes may complete.
                let Some(invalid) = error.error_len() else { break };
                text.push('\u{fffd}');
                at += invalid;
            }
        }
    }
    held.drain(..at);
    text
}
