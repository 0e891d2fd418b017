//! Why an adapter is refused. Each names the file and the key or tensor.

use std::path::PathBuf;

/// An adapter that can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// A file that can't be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory, a device or a pipe, which may have no end.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A file larger than such a file can be.
    #[error("{path} has {bytes} bytes, at most {bytes_max} are read")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A configuration that is not JSON, or a key of the wrong type.
    #[error("parse {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A key whose value asks for something that is not implemented.
    #[error("unsupported {key} = {value} in {path}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, shortened.
        value: String,
    },
    /// A key whose value makes no sense.
    #[error("invalid {key} in {path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A target that exists in the base model and can't be adapted here.
    #[error("unsupported target {module} in {path}")]
    UnsupportedTarget {
        /// The configuration.
        path: PathBuf,
        /// The module.
        module: String,
    },
    /// Targets that name no module of the base model.
    #[error("target_modules in {path} match no module of the base model")]
    NoTarget {
        /// The configuration.
        path: PathBuf,
    },
    /// A weights file that is not what its header claims.
    #[error("weights file {path}: {reason}")]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the configuration requires and the file lacks.
    #[error("tensor {name} is missing from {path}")]
    TensorMissing {
        /// Name of the tensor.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A tensor that belongs to no targeted module.
    #[error("tensor {name} in {path} belongs to no targeted module")]
    TensorUnknown {
        /// Name of the tensor.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A tensor of another shape than configuration and base model require.
    #[error("tensor {name} in {path}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// The file.
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
        /// The file.
        path: PathBuf,
        /// Its type.
        dtype: String,
    },
    /// An adapter that would not fit if it were alone.
    #[error("adapter needs {bytes} bytes, the budget is {resident_bytes_max}")]
    BudgetExceeded {
        /// Bytes it needs.
        bytes: u64,
        /// The budget.
        resident_bytes_max: u64,
    },
    /// Files that are not what they were when the adapter was registered or first loaded.
    #[error("the files in {path} have changed since the adapter was registered: load it again")]
    Changed {
        /// The adapter's directory.
        path: PathBuf,
    },
    /// A name that spells a blend of adapters which can't be made.
    #[error("invalid blend {name:?}: {reason}")]
    Blend {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many wait for adapters to be loaded.
    #[error("{waiting} requests wait for adapters, the most allowed")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The load came to no end: the registry is gone, or its thread failed.
    #[error("the load of {alias:?} was abandoned")]
    Abandoned {
        /// The alias.
        alias: String,
    },
    /// The loader threads can't be started.
    #[error("start the adapter loaders: {source}")]
    Threads {
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory of adapters that can't be listed.
    #[error("list {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Loading would exceed the number of aliases.
    #[error("{adapters_max} adapters are registered, the most allowed")]
    TooMany {
        /// The bound.
        adapters_max: usize,
    },
    /// An alias that can't be used.
    #[error("invalid alias {alias:?}: 1 to {bytes_max} bytes without control characters")]
    Alias {
        /// The alias.
        alias: String,
        /// Longest alias in bytes.
        bytes_max: usize,
    },
    /// An alias that names nothing.
    #[error("no adapter is called {alias:?}")]
    Unknown {
        /// The alias.
        alias: String,
    },
    /// The weights could not be laid out.
    #[error(transparent)]
    Kernel(#[from] kernels::KernelError),
}
