//! A model's tokenizer, from its `tokenizer.json` or from a GGUF file: encode, decode, and the bytes of single tokens.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use request::TokenId;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer as Inner;

use crate::error::TokenizationError;
use crate::gguf;

/// What a model's directory has it in.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// How a token's written form stands for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alphabet {
    /// GPT-2's: each byte is one printable character. Decoding is concatenating bytes.
    ByteLevel,
    /// SentencePiece's: `▁` is a space and `<0x0A>` a byte.
    SentencePiece,
    /// Anything else; the written form is the text.
    Plain,
}

/// A model's tokenizer. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    digest: [u8; 32],
    vocab_size: usize,
    alphabet: Alphabet,
    /// Bytes of GPT-2's alphabet.
    byte_of: HashMap<char, u8>,
    /// Ids of added tokens, with whether each is special.
    added: HashMap<TokenId, bool>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model's directory.
    ///
    /// # Errors
    /// Names the file.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizationError> {
        let path = dir.join(TOKENIZER_FILE);
        let bytes = fs::read(&path)
            .map_err(|source| TokenizationError::Io { path: path.clone(), source })?;
        Self::from_bytes(&bytes).map_err(|reason| TokenizationError::File { path, reason })
    }

    /// The tokenizer in the metadata of the GGUF file at `path`: keys as there, lists as arrays.
    ///
    /// # Errors
    /// Names the file, and the key that is missing, of another type, or not known.
    pub fn from_gguf(
        path: &Path,
        metadata: &Map<String, Value>,
    ) -> Result<Self, TokenizationError> {
        let json = gguf::tokenizer_json(metadata);
        let tokenizer = json.and_then(|json| Self::from_bytes(json.to_string().as_bytes()));
        tokenizer.map_err(|reason| TokenizationError::File { path: path.to_owned(), reason })
    }

    /// Reads the content of a `tokenizer.json`; the error says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut inner = Inner::from_bytes(bytes).map_err(|error| error.to_string())?;
        // Both are training leftovers: a server must neither cut prompts nor pad them.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let json: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let decoder = json["decoder"].to_string();
        let alphabet = match () {
            () if decoder.contains("\"ByteLevel\"") => Alphabet::ByteLevel,
            () if decoder.contains("\"ByteFallback\"") || decoder.contains('▁') => {
                Alphabet::SentencePiece
            }
            () => Alphabet::Plain,
        };
        let added: HashMap<_, _> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| (id, token.special))
            .collect();
        // Ids need not be dense: the size is what bounds them.
        let ids = inner.get_vocab(true).into_values().max();
        let vocab_size = ids.map_or(0, |id| id as usize + 1);
        let digest = Sha256::digest(bytes).into();
        Ok(Self { inner, digest, vocab_size, alphabet, byte_of: byte_alphabet(), added })
    }

    /// Token ids of `text`. Special tokens that are written out in it become themselves;
    /// `add_special` adds those that begin or end every text of this model.
    ///
    /// # Errors
    /// What the tokenizer said.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TokenizationError> {
        let encoding = self.inner.encode_fast(text, add_special);
        let encoding =
            encoding.map_err(|error| TokenizationError::Encode { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; half characters become U+FFFD.
    ///
    /// # Errors
    /// What the tokenizer said. An id outside the vocabulary is skipped.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> Result<String, TokenizationError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|error| TokenizationError::Decode { reason: error.to_string() })
    }

    /// The bytes that a token alone stands for; `None` outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, id: TokenId) -> Option<Vec<u8>> {
        let written = self.inner.id_to_token(id)?;
        if self.added.contains_key(&id) {
            return Some(written.into_bytes());
        }
        match self.alphabet {
            Alphabet::ByteLevel => {
                let bytes = written.chars().map(|c| self.byte_of.get(&c).copied()).collect();
                Some(bytes).flatten().or_else(|| Some(written.into_bytes()))
            }
            Alphabet::SentencePiece => Some(sentencepiece_bytes(&written)),
            Alphabet::Plain => Some(written.into_bytes()),
        }
    }

    /// Every token id is below this.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// SHA-256 of `tokenizer.json`, or of what a GGUF file says in that form.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether `skip_special` leaves this token out.
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.added.get(&id).copied().unwrap_or(false)
    }

    /// Whether the text of tokens is the text of their bytes, one after the other.
    pub(crate) fn concatenates_bytes(&self) -> bool {
        self.alphabet == Alphabet::ByteLevel
    }
}

fn sentencepiece_bytes(written: &str) -> Vec<u8> {
    let hex = written.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    if let Some(hex) = hex.filter(|hex| hex.len() == 2)
        && let Ok(byte) = u8::from_str_radix(hex, 16)
    {
        return vec![byte];
    }
    written.replace('▁', " ").into_bytes()
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for the next character
/// from U+0100 on.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let character = if printable { u32::from(byte) } else { next };
            next += u32::from(!printable);
            (char::from_u32(character).expect("below U+0200"), byte)
        })
        .collect()
}
