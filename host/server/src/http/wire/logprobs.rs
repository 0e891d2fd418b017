//! Log probabilities on the wire: chat has a list of objects, completions has parallel arrays.

use std::collections::BTreeMap;

use pipeline::{Alternative, TokenPiece};
use serde::Serialize;

/// JSON has no infinities: what is less likely than this is written as this, as OpenAI does.
const LOGPROB_MIN: f32 = -9999.0;

/// `choices[].logprobs` of chat.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Debug, Serialize)]
struct ChatAlternative {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

impl ChatLogprobs {
    pub(crate) fn push(&mut self, pieces: Vec<TokenPiece>) {
        self.content.extend(pieces.into_iter().map(ChatToken::from));
    }
}

impl From<TokenPiece> for ChatToken {
    fn from(piece: TokenPiece) -> Self {
        let alternative = |Alternative { text, bytes, logprob, .. }| ChatAlternative {
            token: text,
            logprob: logprob.max(LOGPROB_MIN),
            bytes,
        };
        Self {
            token: piece.text,
            logprob: piece.logprob.unwrap_or(LOGPROB_MIN).max(LOGPROB_MIN),
            bytes: piece.bytes,
            top_logprobs: piece.top.into_iter().map(alternative).collect(),
        }
    }
}

/// `choices[].logprobs` of completions. Offsets are in characters from the start of the choice.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Appends tokens; `offset` is where the first begins, and becomes where the next would.
    pub(crate) fn push(&mut self, pieces: Vec<TokenPiece>, offset: &mut usize) {
        for piece in pieces {
            let top = piece.logprob.map(|logprob| {
                let alternatives =
                    piece.top.iter().map(|other| (other.text.clone(), other.logprob));
                let own = (piece.text.clone(), logprob);
                let all = alternatives.chain([own]);
                all.map(|(text, logprob)| (text, logprob.max(LOGPROB_MIN))).collect()
            });
            self.top_logprobs.push(top);
            self.token_logprobs.push(piece.logprob.map(|logprob| logprob.max(LOGPROB_MIN)));
            self.text_offset.push(*offset);
            *offset += piece.text.chars().count();
            self.tokens.push(piece.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, logprob: Option<f32>, top: &[(&str, f32)]) -> TokenPiece {
        let alternative = |(text, logprob): &(&str, f32)| Alternative {
            id: 0,
            text: (*text).to_owned(),
            bytes: None,
            logprob: *logprob,
        };
        let top = top.iter().map(alternative).collect();
        TokenPiece { id: 0, text: text.to_owned(), bytes: None, logprob, top }
    }

    #[test]
    fn completions_have_offsets_and_the_chosen_token_among_the_top() {
        let mut logprobs = CompletionLogprobs::default();
        let mut offset = 0;
        logprobs.push(vec![piece("é", None, &[])], &mut offset);
        logprobs.push(vec![piece("ab", Some(-2.0), &[("x", -0.5)])], &mut offset);
        let json = serde_json::to_value(&logprobs).expect("JSON");
        let expect = serde_json::json!({
            "tokens": ["é", "ab"],
            "token_logprobs": [null, -2.0],
            "top_logprobs": [null, {"x": -0.5, "ab": -2.0}],
            "text_offset": [0, 1],
        });
        assert_eq!(json, expect);
        assert_eq!(offset, 3);
    }

    #[test]
    fn an_impossible_token_is_still_json() {
        let mut logprobs = ChatLogprobs::default();
        logprobs.push(vec![piece("a", Some(f32::NEG_INFINITY), &[("b", f32::NEG_INFINITY)])]);
        let json = serde_json::to_value(&logprobs).expect("JSON");
        assert_eq!(json["content"][0]["logprob"], -9999.0);
        assert_eq!(json["content"][0]["top_logprobs"][0]["logprob"], -9999.0);
    }
}
