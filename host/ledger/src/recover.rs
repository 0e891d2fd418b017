//! Opening a log, after a clean end or a crash: every record is read and checked.

use std::collections::HashMap;

use crate::chain::Digest;
use crate::error::{LedgerError, VerifyError};
use crate::record::Entry;
use crate::segment::{self, HEADER_BYTES};
use crate::storage::Storage;

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Records in the log.
    pub entries: u64,
    /// Bytes of a torn, unacknowledged end that were cut off.
    pub truncated_bytes: u64,
}

/// Where a record stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) previous: Digest,
}

/// The state of a log that checks out.
pub(crate) struct State {
    pub(crate) next_index: u64,
    pub(crate) head: Digest,
    /// The segment that is appended to, with its length; `None` in an empty log.
    pub(crate) tail: Option<(String, u64)>,
    pub(crate) places: HashMap<String, Place>,
    pub(crate) segments: usize,
}

/// Damage, and whether cutting the file there would mend it.
pub(crate) struct Damage {
    pub(crate) error: VerifyError,
    /// The torn end of the last segment: the file and the length to keep (0 removes it).
    pub(crate) torn: Option<(String, u64, u64)>,
}

/// Reads the whole log. `Err` holds the first damage and the state up to it.
pub(crate) fn scan(storage: &dyn Storage) -> Result<(State, Option<Damage>), LedgerError> {
    let mut names = storage.list().map_err(|error| LedgerError::io("list", "log", error))?;
    names.retain(|name| segment::first_of(name).is_some());
    names.sort();
    let mut state = State {
        next_index: 0,
        head: Digest::ZERO,
        tail: None,
        places: HashMap::new(),
        segments: names.len(),
    };
    for (at, name) in names.iter().enumerate() {
        let bytes = storage.read(name).map_err(|error| LedgerError::io("read", name, error))?;
        let is_last = at + 1 == names.len();
        if let Some(damage) = scan_segment(&mut state, name, &bytes, is_last) {
            return Ok((state, Some(damage)));
        }
    }
    Ok((state, None))
}

fn scan_segment(state: &mut State, name: &str, bytes: &[u8], is_last: bool) -> Option<Damage> {
    let error = |index, offset: usize, reason: &str| VerifyError {
        file: name.to_owned(),
        index,
        offset: offset as u64,
        reason: reason.to_owned(),
    };
    match segment::read_header(bytes) {
        Ok(found) if found == (state.next_index, state.head) => {}
        Ok(_) => {
            let reason = "the segment does not continue the one before it";
            return Some(Damage { error: error(state.next_index, 0, reason), torn: None });
        }
        Err(reason) => {
            // A header is synced before the first record: a short or empty one holds nothing.
            let empty = bytes.len() < HEADER_BYTES || bytes.iter().all(|byte| *byte == 0);
            let torn = is_last && empty;
            let torn = torn.then(|| (name.to_owned(), 0, bytes.len() as u64));
            return Some(Damage { error: error(state.next_index, 0, reason), torn });
        }
    }
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let record =
            segment::decode(bytes, offset, (state.next_index, state.head)).and_then(|record| {
                let entry: Result<Entry, _> = serde_json::from_slice(record.payload);
                Ok((entry.map_err(|_| "the payload is not a receipt")?.id, record))
            });
        let (id, record) = match record {
            Ok(found) => found,
            Err(reason) => {
                let torn = is_last && segment::is_torn(bytes, offset, state.next_index);
                let lost = (bytes.len() - offset) as u64;
                let torn = torn.then(|| (name.to_owned(), offset as u64, lost));
                state.tail = Some((name.to_owned(), offset as u64));
                return Some(Damage { error: error(state.next_index, offset, reason), torn });
            }
        };
        let place = Place {
            file: name.to_owned(),
            offset: offset as u64,
            index: state.next_index,
            previous: state.head,
        };
        if state.places.insert(id, place).is_some() {
            let reason = "its id stands in an earlier record";
            return Some(Damage { error: error(state.next_index, offset, reason), torn: None });
        }
        (state.head, offset) = (record.hash, record.end);
        state.next_index += 1;
    }
    state.tail = Some((name.to_owned(), bytes.len() as u64));
    None
}

/// Reads the log and cuts off a torn end. What is left is durable: the process before this one may have
/// died, or failed to sync, before the disk had what its cache shows.
pub(crate) fn recover(storage: &mut dyn Storage) -> Result<(State, Recovery), LedgerError> {
    let (state, recovery) = mend(storage)?;
    if let Some((name, _)) = &state.tail {
        storage.sync(name).map_err(|error| LedgerError::io("sync", name, error))?;
    }
    Ok((state, recovery))
}

fn mend(storage: &mut dyn Storage) -> Result<(State, Recovery), LedgerError> {
    let (state, damage) = scan(storage)?;
    let Some(damage) = damage else {
        let recovery = Recovery { entries: state.next_index, truncated_bytes: 0 };
        return Ok((state, recovery));
    };
    let Some((file, keep, truncated_bytes)) = damage.torn else {
        return Err(damage.error.into());
    };
    storage.truncate(&file, keep).map_err(|error| LedgerError::io("truncate", &file, error))?;
    let (state, damage) = scan(storage)?;
    match damage {
        Some(damage) => Err(damage.error.into()),
        None => {
            let recovery = Recovery { entries: state.next_index, truncated_bytes };
            Ok((state, recovery))
        }
    }
}
