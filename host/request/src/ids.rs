//! Identities: token ids, content digests, adapter generations and request ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Index into the tokenizer's vocabulary.
pub type TokenId = u32;

/// SHA-256 of some content; shown and serialised as 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Digest of several fields, each preceded by its length, so that moving a byte from one field
    /// to the next changes the result.
    #[must_use]
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for field in fields {
            hasher.update((field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        Self(hasher.finalize().into())
    }

    /// The first 12 hex digits: enough to tell versions apart in a log line, never an identity.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Text that is not 64 hex digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("parse digest: expected 64 hex digits, got {length} bytes of text")]
pub struct ParseDigestError {
    /// Length of the refused text in bytes.
    pub length: usize,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseDigestError { length: text.len() })?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an adapter *is*: the hash of its configuration and weights. An alias may move from one
/// generation to the next; a request keeps the one it began with, and prefix blocks are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdapterGeneration(pub Digest);

impl fmt::Display for AdapterGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of one request: a wire prefix (`chatcmpl`, `cmpl`) and 128 random bits in hex. It is also
/// the name of the request's receipt, so it must not be guessable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// `prefix-` followed by the hex of `random`. The caller owns the randomness.
    #[must_use]
    pub fn new(prefix: &str, random: [u8; 16]) -> Self {
        Self(format!("{prefix}-{}", hex::encode(random)))
    }

    /// The id as it is written on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text_round_trips_and_rejects_other_lengths() {
        let digest = Digest::of(b"mortise");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let text = digest.to_string();
        assert_eq!(text[..62].parse::<Digest>(), Err(ParseDigestError { length: 62 }));
        assert_eq!(format!("{text}00").parse::<Digest>(), Err(ParseDigestError { length: 66 }));
        assert!(text.replace(|c: char| c.is_ascii_digit(), "g").parse::<Digest>().is_err());
    }

    #[test]
    fn field_boundaries_are_part_of_the_digest() {
        let one = Digest::of_fields([b"ab".as_slice(), b"c"]);
        let other = Digest::of_fields([b"a".as_slice(), b"bc"]);
        assert_ne!(one, other);
    }
}
