//! The mock tokenizer: a token is a word with the whitespace before it, or a single character that
//! is neither letter nor digit. Ids count up in order of first sight, so `decode` gives back exactly
//! what `encode` took.

use std::collections::HashMap;

use crate::types::{Error, Result};

#[derive(Default)]
pub(crate) struct Words {
    ids: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Words {
    pub(crate) fn encode(&mut self, text: &str) -> Vec<u32> {
        pieces(text).into_iter().map(|piece| self.id(piece)).collect()
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = |id: &u32| {
            let unknown = || Error::invalid(format!("token {id} is not in the vocabulary"));
            self.texts.get(*id as usize).map(String::as_str).ok_or_else(unknown)
        };
        ids.iter().map(text).collect()
    }

    fn id(&mut self, piece: &str) -> u32 {
        if let Some(id) = self.ids.get(piece) {
            return *id;
        }
        let id = self.texts.len() as u32;
        self.ids.insert(piece.to_owned(), id);
        self.texts.push(piece.to_owned());
        id
    }
}

fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut in_word) = (0, false);
    for (at, c) in text.char_indices() {
        let only_space = text[start..at].chars().all(char::is_whitespace);
        let joins = if in_word { c.is_alphanumeric() } else { only_space };
        if !joins && at > start {
            pieces.push(&text[start..at]);
            start = at;
        }
        in_word = c.is_alphanumeric();
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_text() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(pieces(text), expect);
            let mut words = Words::default();
            let ids = words.encode(text);
            assert_eq!(words.decode(&ids).expect("known ids"), text);
        };
        check("", &[]);
        check("one two", &["one", " two"]);
        check("a, b.", &["a", ",", " b", "."]);
        check("  \n", &["  \n"]);
        check("é1 世界!?", &["é1", " 世界", "!", "?"]);
    }

    #[test]
    fn an_unknown_id_is_refused() {
        assert_eq!(Words::default().decode(&[7]).expect_err("unknown").code, "invalid");
    }
}
