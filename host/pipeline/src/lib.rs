//! The order of stages for one request, and what a failure in each means.
//!
//! route, lease, preprocess, tokenize, generate, postprocess, attribute, record: see
//! [`Pipeline::submit`]. Knows no HTTP and no JSON shape of the wire, reads no file and no
//! environment, and holds no lock while a stage runs.

#![forbid(unsafe_code)]

pub mod answer;
pub mod error;
pub mod request;

pub use answer::{
    Alternative, Answer, AnswerEvent, Attribution, AttributionStatus, Credit, MatchedSpan, Summary,
    TokenPiece,
};
pub use error::PipelineError;
pub use request::{GenerateRequest, Input};
