//! The bytes of a segment: its header and its records. See `FORMAT.md`. Reads from memory only, and
//! trusts no length it has not compared with what is there.

use crate::chain::{Digest, hash};

/// Magic and version.
const MAGIC: &[u8; 8] = b"MORTLOG1";
/// Magic, first index, previous hash, checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 8 + 32 + 4;
/// Length, checksum and group before a payload.
const FRAME_BYTES: usize = 4 + 4 + GROUP_BYTES;
const GROUP_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
/// Bytes of a record besides its payload.
pub(crate) const RECORD_BYTES_BESIDES: usize = FRAME_BYTES + HASH_BYTES;
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

/// Where a record stands and what it is synced with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) index: u64,
    /// Index of the first record that is synced with it: all before that were durable when it was
    /// written.
    pub(crate) group: u64,
    pub(crate) previous: Digest,
}

/// A record's bytes and hash.
pub(crate) fn encode(position: Position, payload: &[u8]) -> (Vec<u8>, Digest) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the writer refuses longer payloads");
    let length = u32::try_from(payload.len()).expect("under the limit").to_le_bytes();
    let hash = hash(position.index, position.previous, payload);
    let group = position.group.to_le_bytes();
    let checksum = checksum([&length, &group, payload, &hash.0]);
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len() + HASH_BYTES);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&group);
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
    let frame = frame(bytes, offset)?;
    if hash(index, previous, frame.payload) != frame.hash {
        return Err("the hash does not follow from the record before it");
    }
    Ok(Record { payload: frame.payload, hash: frame.hash, end: frame.end })
}

/// CRC-32C of a whole record but its own field, so that a torn write of any part of it shows.
fn checksum(parts: [&[u8]; 4]) -> u32 {
    parts.into_iter().fold(0, crc32c::crc32c_append)
}

/// A record whose checksum is right.
struct Frame<'a> {
    group: u64,
    payload: &'a [u8],
    hash: Digest,
    end: usize,
}

/// The frame at `offset`, if its checksum is right.
fn frame(bytes: &[u8], offset: usize) -> Result<Frame<'_>, &'static str> {
    let rest = bytes.get(offset..).ok_or("the record is cut short")?;
    let head = rest.get(..FRAME_BYTES).ok_or("the record is cut short")?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err("the length is over the limit");
    }
    let end = FRAME_BYTES + length + HASH_BYTES;
    let record = rest.get(..end).ok_or("the record is cut short")?;
    let payload = &record[FRAME_BYTES..FRAME_BYTES + length];
    let hash = &record[FRAME_BYTES + length..];
    if checksum([&head[..4], &head[8..], payload, hash]).to_le_bytes() != head[4..8] {
        return Err("the checksum is wrong");
    }
    let group = u64::from_le_bytes(head[8..].try_into().expect("8 bytes"));
    let hash = Digest(hash.try_into().expect("32 bytes"));
    Ok(Frame { group, payload, hash, end: offset + end })
}

/// Whether what is wrong at `offset`, where record `index` should be, may be the end of a torn write: the
/// frame there is broken, and no intact one behind it was written after `index` was durable. A disk may
/// write the parts of one group in any order, so intact frames of its own group may follow.
pub(crate) fn is_torn(bytes: &[u8], offset: usize, index: u64) -> bool {
    // Elsewhere than at `offset` a frame of no bytes would match by chance: receipts begin with a brace,
    // and looking for it first keeps a large tail from being summed up at every byte.
    let begins = |at: &usize| *at > offset && bytes.get(at + FRAME_BYTES) == Some(&b'{');
    let mut behind = (offset..bytes.len()).filter(begins).filter_map(|at| frame(bytes, at).ok());
    frame(bytes, offset).is_err() && behind.all(|frame| frame.group <= index)
}
