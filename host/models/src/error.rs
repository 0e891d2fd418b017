//! Why a model can't be loaded, and why a batch can't be run.

use std::path::PathBuf;

use crate::Architecture;

/// A batch whose parts contradict each other or the cache.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// Two lists that must be of one length are not.
    #[error("{what}: expected {expected}, found {found}")]
    Lengths {
        /// Which list.
        what: &'static str,
        /// Length it should have.
        expected: usize,
        /// Length it has.
        found: usize,
    },
    /// A token id outside the vocabulary.
    #[error("row {row}: token {token} is not below the vocabulary size {vocab_size}")]
    Token {
        /// Row in the batch.
        row: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Logits wanted of a row that is not there.
    #[error("row {row} wanted, the batch has {rows}")]
    WantedRow {
        /// The row asked for.
        row: u32,
        /// Rows in the batch.
        rows: usize,
    },
    /// A span that does not begin where the previous one ends, or is empty, or overruns the rows.
    #[error("sequence {sequence}: span must begin at row {expected_start} and hold rows")]
    Span {
        /// Index of the sequence.
        sequence: usize,
        /// Where it must begin.
        expected_start: usize,
    },
    /// Positions that do not count up to the context length, or leave the model's range.
    #[error(
        "sequence {sequence}: positions must count up to context length {context_len}, at most \
         {positions_max}"
    )]
    Positions {
        /// Index of the sequence.
        sequence: usize,
        /// Its context length.
        context_len: usize,
        /// Largest context of the model.
        positions_max: usize,
    },
    /// A block table that is too short or names a block outside the cache.
    #[error("sequence {sequence}: needs {needed} blocks below {kv_blocks}, its table has {found}")]
    BlockTable {
        /// Index of the sequence.
        sequence: usize,
        /// Blocks its context needs.
        needed: usize,
        /// Blocks in its table.
        found: usize,
        /// Blocks in the cache.
        kv_blocks: usize,
    },
    /// An adapter that was loaded for a model of another shape.
    #[error("sequence {sequence}: adapter was loaded for another model")]
    AdapterShape {
        /// Index of the sequence.
        sequence: usize,
    },
    /// A cache that was made for a model of another shape.
    #[error("the kv cache was made for another model")]
    KvCacheShape,
}

/// Loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that can't be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file that does not parse, or lacks a required key.
    #[error("parse {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A model of a class that we do not implement.
    #[error("unsupported architectures {found:?}; supported are {}", Architecture::names())]
    Architecture {
        /// What `architectures` in `config.json` says.
        found: String,
    },
    /// A configuration we could read and do not implement.
    #[error("unsupported {key} {value:?}{hint}")]
    Unsupported {
        /// Key of `config.json`.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted, beginning with a separator; may be empty.
        hint: &'static str,
    },
    /// A configuration that contradicts itself.
    #[error("invalid {key}: {reason}")]
    Config {
        /// Key of `config.json`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A weights file that is not what its header claims.
    #[error("weights file {path}: {reason}")]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the configuration requires and no file has.
    #[error("tensor {name} is missing from {path}")]
    TensorMissing {
        /// Name of the tensor.
        name: String,
        /// The file that should have it, or the directory.
        path: PathBuf,
    },
    /// A tensor of another shape than the configuration requires.
    #[error("tensor {name} in {path}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// The file it is in.
        path: PathBuf,
        /// Shape required.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// A tensor of a type that is not f32, f16 or bf16.
    #[error("tensor {name} in {path}: unsupported dtype {dtype}")]
    TensorDtype {
        /// Name of the tensor.
        name: String,
        /// The file it is in.
        path: PathBuf,
        /// Its type.
        dtype: String,
    },
    /// A model that can't be shared by so many ranks.
    #[error("a model on {ranks} ranks: {reason}")]
    Parallel {
        /// The ranks asked for.
        ranks: usize,
        /// What can't be shared.
        reason: String,
    },
    /// A model that CUDA devices can't run, where the CPU can.
    #[error("{architecture} is not served on cuda devices: {reason}")]
    Device {
        /// Class of the model.
        architecture: Architecture,
        /// What is missing.
        reason: String,
    },
    /// Threads that the system refuses.
    #[error("start the threads of a rank: {source}")]
    Threads {
        /// What the system said.
        source: std::io::Error,
    },
    /// A batch that can't be run.
    #[error("invalid batch: {0}")]
    Batch(#[from] BatchError),
    /// An op refused its arguments or its device.
    #[error(transparent)]
    Kernel(#[from] kernels::KernelError),
}
