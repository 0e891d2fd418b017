//! Append-only, hash-chained receipts: who asked which model what, which versions of everything
//! took part, what came out, and who is credited.
//!
//! Parts: [`record`] (what a receipt says), [`chain`] (how records hang together), [`segment`] (the
//! bytes, see `FORMAT.md`), [`storage`] (files, and the trait that tests use to cut the power),
//! [`recover`] (opening after a crash), [`writer`] (groups and acknowledgement), [`verify`]
//! (offline). Depends on no other crate of ours, so that an auditor can build it alone.

#![forbid(unsafe_code)]

pub mod chain;
pub mod error;
pub mod record;
mod recover;
mod segment;
pub mod storage;
pub mod verify;
mod writer;

pub use chain::Digest;
pub use error::{LedgerError, VerifyError};
pub use record::{
    AdapterRef, AttributionRecord, Entry, PluginRecord, Receipt, ShareRecord, UsageRecord,
};
pub use recover::Recovery;
pub use verify::{VerifyReport, verify_dir, verify_receipt_json};
pub use writer::{Ledger, LedgerConfig};
