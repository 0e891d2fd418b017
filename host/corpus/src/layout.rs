//! The bytes of a segment, written and read. See `FORMAT.md`.

use sha2::{Digest, Sha256};

pub(crate) const MAGIC: &[u8; 8] = b"MORTSEG1";
const DIGEST_BYTES: usize = 32;
/// Symbols of a segment, separators included: suffixes are sorted with signed 32-bit indices.
pub(crate) const TEXT_MAX: usize = i32::MAX as usize;

/// A segment in memory, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) tokenizer: [u8; 32],
    pub(crate) owner_names: Vec<String>,
    pub(crate) document_ids: Vec<String>,
    pub(crate) document_owners: Vec<u32>,
    pub(crate) document_starts: Vec<u32>,
    pub(crate) text: Vec<u32>,
    pub(crate) suffixes: Vec<u32>,
}

/// What is wrong with bytes that were to be a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

fn damage<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Damage> {
    Err(Damage { field, reason: reason.into() })
}

impl Layout {
    /// The bytes with their digest.
    pub(crate) fn encode(&self) -> (Vec<u8>, [u8; 32]) {
        let mut bytes = Vec::with_capacity(self.text.len() * 8 + 4096);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.tokenizer);
        bytes.extend_from_slice(&(self.text.len() as u64).to_le_bytes());
        put(&mut bytes, self.document_ids.len());
        put(&mut bytes, self.owner_names.len());
        for name in self.owner_names.iter().chain(&self.document_ids) {
            put(&mut bytes, name.len());
            bytes.extend_from_slice(name.as_bytes());
        }
        let numbers = [&self.document_owners, &self.document_starts, &self.text, &self.suffixes];
        for number in numbers.into_iter().flatten() {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&digest);
        (bytes, digest)
    }

    /// Reads and checks; the digest comes back with the layout.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, [u8; 32]), Damage> {
        if bytes.get(..8) != Some(MAGIC.as_slice()) {
            return damage("magic", "not a segment of a version this program reads");
        }
        let Some((body, stored)) = bytes.split_last_chunk::<DIGEST_BYTES>() else {
            return damage("digest", "the file is cut short");
        };
        let digest: [u8; 32] = Sha256::digest(body).into();
        if digest != *stored {
            return damage(
                "digest",
                "does not match the content: the file is damaged or cut short",
            );
        }
        let mut reader = Reader { bytes: body, at: 8 };
        let tokenizer = reader.take(32, "tokenizer")?.try_into().expect("32 bytes");
        let length = reader.take(8, "text length")?.try_into().expect("8 bytes");
        let length = u64::from_le_bytes(length);
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= TEXT_MAX) else {
            return damage("text length", format!("{length} is over the limit of {TEXT_MAX}"));
        };
        let documents = reader.number("documents")? as usize;
        let owners = reader.number("owners")? as usize;
        let layout = Self {
            tokenizer,
            owner_names: reader.names(owners, "owner names")?,
            document_ids: reader.names(documents, "document ids")?,
            document_owners: reader.numbers(documents, "document owners")?,
            document_starts: reader.numbers(documents, "document starts")?,
            text: reader.numbers(length, "text")?,
            suffixes: reader.numbers(length, "suffix array")?,
        };
        if reader.at != body.len() {
            return damage("suffix array", format!("{} bytes follow it", body.len() - reader.at));
        }
        layout.check()?;
        Ok((layout, digest))
    }

    /// Everything that a query relies on, so that none can be led out of bounds.
    fn check(&self) -> Result<(), Damage> {
        if self.document_ids.is_empty() {
            return damage("documents", "there are none");
        }
        let owners = self.owner_names.len();
        if let Some(owner) = self.document_owners.iter().find(|owner| **owner as usize >= owners) {
            return damage("document owners", format!("{owner} of {owners} owners"));
        }
        let starts = &self.document_starts;
        let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
        let last = starts.last().copied().unwrap_or_default() as usize;
        if starts.first() != Some(&0) || !ascending || last >= self.text.len() {
            return damage("document starts", "not ascending from 0 within the text");
        }
        let ends = starts[1..].iter().map(|start| *start as usize).chain([self.text.len()]);
        for (document, end) in ends.enumerate() {
            if self.text[end - 1] != 0 {
                return damage("text", format!("document {document} has no end"));
            }
        }
        self.check_order()
    }

    /// That the suffix array holds every suffix once and in order, in one pass: two suffixes that begin
    /// with the same symbol are in the order of what follows, whose places are known. The digest proves
    /// only that the file is what its writer wrote; a writer that lies about the order would have
    /// searches miss evidence.
    fn check_order(&self) -> Result<(), Damage> {
        // 0 is no place yet, and the empty suffix, which comes before all others.
        let mut places = vec![0_u32; self.text.len() + 1];
        for (place, suffix) in (1..).zip(&self.suffixes) {
            match places[..self.text.len()].get_mut(*suffix as usize) {
                Some(known) if *known == 0 => *known = place,
                _ => return damage("suffix array", format!("{suffix} is outside or stands twice")),
            }
        }
        let key = |suffix: u32| (self.text[suffix as usize], places[suffix as usize + 1]);
        match self.suffixes.windows(2).position(|pair| key(pair[0]) >= key(pair[1])) {
            Some(at) => damage("suffix array", format!("out of order at {at}")),
            None => Ok(()),
        }
    }
}

fn put(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("the builder bounds every count");
    bytes.extend_from_slice(&length.to_le_bytes());
}

/// Takes fields off the front; no length is trusted before it is compared with what is left.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Damage> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..length) else {
            return damage(field, format!("{length} bytes, where {} are left", rest.len()));
        };
        self.at += length;
        Ok(taken)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.take(4, field)?.try_into().expect("4 bytes")))
    }

    fn numbers(&mut self, count: usize, field: &'static str) -> Result<Vec<u32>, Damage> {
        // A product that overflows is more than any file holds.
        let bytes = self.take(count.saturating_mul(4), field)?;
        let number = |chunk: &[u8]| u32::from_le_bytes(chunk.try_into().expect("4 bytes"));
        Ok(bytes.chunks_exact(4).map(number).collect())
    }

    fn names(&mut self, count: usize, field: &'static str) -> Result<Vec<String>, Damage> {
        let mut names = Vec::new();
        for _ in 0..count {
            let length = self.number(field)? as usize;
            match std::str::from_utf8(self.take(length, field)?) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return damage(field, format!("name {} is not UTF-8", names.len())),
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One document of `text`, which must end in a separator, with its suffixes sorted the slow way.
    fn layout(text: &[u32]) -> Layout {
        let mut suffixes: Vec<u32> = (0..).take(text.len()).collect();
        suffixes.sort_by_key(|suffix| &text[*suffix as usize..]);
        Layout {
            tokenizer: [0; 32],
            owner_names: vec!["ada".to_owned()],
            document_ids: vec!["one".to_owned()],
            document_owners: vec![0],
            document_starts: vec![0],
            text: text.to_vec(),
            suffixes,
        }
    }

    #[test]
    fn a_suffix_array_out_of_order_is_refused_wherever_it_is() {
        for text in [&[5, 5, 5, 5, 0][..], &[2, 1, 2, 1, 3, 0], &[7, 0]] {
            let good = layout(text);
            assert_eq!(good.check(), Ok(()), "{text:?}");
            for at in 1..text.len() {
                let mut lying = good.clone();
                lying.suffixes.swap(at - 1, at);
                let damage = lying.check().expect_err("out of order");
                assert_eq!(damage.field, "suffix array", "{text:?}");
            }
            let mut twice = good;
            twice.suffixes[0] = twice.suffixes[1];
            assert!(twice.check().expect_err("twice").reason.contains("stands twice"));
        }
    }
}
