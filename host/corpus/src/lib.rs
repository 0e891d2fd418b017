//! A suffix index over a training corpus: which runs of an answer stand in it word for word, how
//! often, and whose documents they are.
//!
//! Parts: [`build`] (documents into a segment), [`segment`] (open, look up), [`spans`] (maximal
//! spans of an output), [`layout`] (the bytes, see `FORMAT.md`). Pure and synchronous; knows no
//! text, only token ids, and never says what evidence is worth.

#![forbid(unsafe_code)]

pub mod build;
pub mod error;
mod layout;
pub mod segment;
pub mod spans;

pub use build::{BuildInput, Document, SegmentInfo, build};
pub use error::{BuildError, OpenError};
pub use segment::Segment;
pub use spans::{OwnerCount, Span, SpanLimits};
