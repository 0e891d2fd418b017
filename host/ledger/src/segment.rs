//! The bytes of a segment: its header and its records. See `FORMAT.md`. Reads from memory only, and
//! trusts no length it has not compared with what is there.

use crate::chain::{Digest, hash};

/// Magic and version.
const MAGIC: &[u8; 8] = b"MORTLOG1";
/// Magic, first index, previous hash, checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 8 + 32 + 4;
/// Length and checksum before a payload.
const FRAME_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
/// Longest payload.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// File name of the segment that begins at record `first`.
pub(crate) fn file_name(first: u64) -> String {
    format!("receipts-{first:016}.log")
}

/// The first record of a segment by its file name; `None` for other files.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("receipts-")?.strip_suffix(".log")?;
    (digits.len() == 16).then(|| digits.parse().ok())?
}

/// The header's bytes.
pub(crate) fn header(first: u64, previous: Digest) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..48].copy_from_slice(&previous.0);
    let checksum = crc32c::crc32c(&bytes[..48]);
    bytes[48..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// First index and previous hash of a header, or what is wrong with it.
pub(crate) fn read_header(bytes: &[u8]) -> Result<(u64, Digest), &'static str> {
    let header = bytes.get(..HEADER_BYTES).ok_or("the header is cut short")?;
    if header[..8] != *MAGIC {
        return Err("not a receipt log of a version this program reads");
    }
    if crc32c::crc32c(&header[..48]).to_le_bytes() != header[48..] {
        return Err("the header's checksum is wrong");
    }
    let first = u64::from_le_bytes(header[8..16].try_into().expect("8 bytes"));
    Ok((first, Digest(header[16..48].try_into().expect("32 bytes"))))
}

/// Bytes and hash of the record at `index`.
pub(crate) fn encode(index: u64, previous: Digest, payload: &[u8]) -> (Vec<u8>, Digest) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the writer refuses longer payloads");
    let length = u32::try_from(payload.len()).expect("under the limit").to_le_bytes();
    let hash = hash(index, previous, payload);
    let checksum = checksum(&length, payload, &hash.0);
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len() + HASH_BYTES);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&hash.0);
    (bytes, hash)
}

/// A record that checks out by itself and against `previous`.
pub(crate) struct Record<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) hash: Digest,
    /// Offset of the next record.
    pub(crate) end: usize,
}

/// The record at `offset`, which is the `index`th of the log, or what is wrong with it.
pub(crate) fn decode(
    bytes: &[u8],
    offset: usize,
    (index, previous): (u64, Digest),
) -> Result<Record<'_>, &'static str> {
    let (payload, stored, end) = frame(bytes, offset)?;
    if hash(index, previous, payload) != stored {
        return Err("the hash does not follow from the record before it");
    }
    Ok(Record { payload, hash: stored, end })
}

/// CRC-32C of a whole record but its own field, so that a torn write of any part of it shows.
fn checksum(length: &[u8], payload: &[u8], hash: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(length), payload), hash)
}

/// Payload, stored hash and end of the frame at `offset`, if its checksum is right.
fn frame(bytes: &[u8], offset: usize) -> Result<(&[u8], Digest, usize), &'static str> {
    let rest = bytes.get(offset..).ok_or("the record is cut short")?;
    let head = rest.get(..FRAME_BYTES).ok_or("the record is cut short")?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err("the length is over the limit");
    }
    let end = FRAME_BYTES + length + HASH_BYTES;
    let record = rest.get(..end).ok_or("the record is cut short")?;
    let payload = &record[FRAME_BYTES..FRAME_BYTES + length];
    let stored = &record[FRAME_BYTES + length..];
    if checksum(&head[..4], payload, stored).to_le_bytes() != head[4..] {
        return Err("the checksum is wrong");
    }
    let stored = Digest(stored.try_into().expect("32 bytes"));
    Ok((payload, stored, offset + end))
}

/// Whether an intact frame begins at `offset` or anywhere behind it: then what is wrong there is not
/// the end of a torn write, but damage or a forgery.
pub(crate) fn intact_frame_from(bytes: &[u8], offset: usize) -> bool {
    // Elsewhere than at `offset` a frame of no bytes would match by chance: receipts begin with a brace,
    // and looking for it first keeps a large tail from being summed up at every byte.
    let begins = |at: &usize| *at == offset || bytes.get(at + FRAME_BYTES) == Some(&b'{');
    (offset..bytes.len()).filter(begins).any(|at| frame(bytes, at).is_ok())
}
