//! Checking a log or a single receipt without the server.

use std::path::Path;

use crate::chain::{Digest, hash};
use crate::error::{LedgerError, VerifyError};
use crate::record::{Entry, Receipt};
use crate::recover::scan;
use crate::storage::Folder;

/// A log that checks out from its first record to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Records.
    pub entries: u64,
    /// Hash of the last record; who keeps it can prove any later change.
    pub head: Digest,
    /// Segment files.
    pub segments: usize,
}

/// Checks every record of the log in `dir` and changes nothing.
///
/// # Errors
/// [`LedgerError::Damaged`] with the first place that does not check out, a torn end included;
/// [`LedgerError::Io`] if the folder can't be read.
pub fn verify_dir(dir: &Path) -> Result<VerifyReport, LedgerError> {
    let (state, damage) = scan(&Folder::new(dir.to_owned()))?;
    match damage {
        Some(damage) => Err(damage.error.into()),
        None => {
            let (entries, head) = (state.next_index, state.head);
            Ok(VerifyReport { entries, head, segments: state.segments })
        }
    }
}

/// Checks that a receipt, as JSON, hashes to what it says and says what was hashed.
///
/// # Errors
/// Where it does not.
pub fn verify_receipt_json(json: &str) -> Result<Receipt, VerifyError> {
    let fail = |index, reason: String| VerifyError {
        file: "receipt".to_owned(),
        index,
        offset: 0,
        reason,
    };
    let receipt: Receipt =
        serde_json::from_str(json).map_err(|error| fail(0, format!("not a receipt: {error}")))?;
    let entry: Entry = serde_json::from_str(&receipt.payload)
        .map_err(|error| fail(receipt.index, format!("the payload is not a receipt: {error}")))?;
    if entry != receipt.entry {
        return Err(fail(receipt.index, "the fields differ from the hashed payload".to_owned()));
    }
    if hash(receipt.index, receipt.previous_hash, receipt.payload.as_bytes()) != receipt.hash {
        return Err(fail(receipt.index, "the hash does not match the payload".to_owned()));
    }
    Ok(receipt)
}
