//! The order of stages for one request, and what a failure in each means.
//!
//! route, lease, preprocess, tokenize, generate, postprocess, attribute, record: see
//! [`Pipeline::submit`]. Knows no HTTP and no JSON shape of the wire, reads no environment, and
//! holds no lock while a stage runs.

#![forbid(unsafe_code)]

pub mod answer;
mod capabilities;
mod client;
pub mod config;
mod context;
mod corpus_file;
mod corpus_store;
pub mod embed;
pub mod error;
mod meter;
mod metrics;
mod models;
mod pipeline;
pub mod request;
mod shared;
mod stage;
mod usage;

pub use answer::{
    Alternative, Answer, AnswerEvent, Attribution, AttributionStatus, Credit, MatchedSpan, Summary,
    TokenPiece,
};
pub use capabilities::HostCapabilities;
pub use config::PipelineConfig;
pub use corpus_file::{CorpusLoadError, load_corpus};
pub use corpus_store::CorpusStore;
pub use embed::{EmbedRequest, Embedded};
pub use error::PipelineError;
pub use metrics::PipelineMetrics;
pub use models::{ModelCard, ModelKind};
pub use pipeline::{Pipeline, PipelineParts};
pub use request::{GenerateRequest, Input};
pub use shared::BaseModel;
pub use usage::{Loads, UsageBook, UsageReport, UsageRow, Used};
