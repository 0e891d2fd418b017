//! Benchmarks of servers: made models to serve, a load generator over HTTP, and reports.
//!
//! Parts: `shapes` makes random-weight models and adapters of known sizes, `load` drives one server
//! or two alternately, `reading` reads the files that a server loads, `report` writes what was measured. It reaches servers over HTTP alone and
//! links no part of one, so that ours and others are measured by the same means.

#![forbid(unsafe_code)]

mod error;
pub mod load;
pub mod reading;
pub mod report;
pub mod shapes;

pub use error::BenchError;
