//! The host's own errors: why it did not start, why a plugin was not installed, why a swap was not
//! made. What plugins do wrong at run time is a [`crate::PluginFault`].

use std::path::PathBuf;

use request::Digest;

use crate::capability::Capability;
use crate::fault::FaultKind;
use crate::file::FileError;
use crate::manifest::PluginKind;

/// The host could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The directory for compiled code is not usable.
    #[error("use {path} for compiled plugins: {message}")]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The engine refused the limits or the machine refused the pool.
    #[error("start the plugin engine: {message}")]
    Engine {
        /// Why.
        message: String,
    },
    /// No thread for the clock.
    #[error("start the plugin clock: {source}")]
    Clock {
        /// What the system said.
        source: std::io::Error,
    },
}

/// A `plugin.toml` that is not acceptable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not text.
    #[error("{path} is not UTF-8")]
    Utf8 {
        /// The manifest.
        path: PathBuf,
    },
    /// It is not a manifest.
    #[error("{path}: {message}")]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// What and on which line.
        message: String,
    },
    /// A field is out of its bounds.
    #[error("{path}: {field} must be {expected}, got `{got}`")]
    Field {
        /// The manifest.
        path: PathBuf,
        /// Which field.
        field: &'static str,
        /// What would do.
        expected: String,
        /// What it is, cut at 80 characters.
        got: String,
    },
}

/// A plugin was not installed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Its manifest is not acceptable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its component could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The same name and version is known with other content.
    #[error("{plugin} is known with digest {known}, and this is {got}: give it another version")]
    DigestChanged {
        /// `name@version`.
        plugin: String,
        /// What was installed before.
        known: Digest,
        /// What this is.
        got: Digest,
    },
    /// The plugin of that name is of another kind.
    #[error("{plugin} is a {known}, and this is a {got}")]
    KindChanged {
        /// `name@version`.
        plugin: String,
        /// What it was before.
        known: PluginKind,
        /// What this is.
        got: PluginKind,
    },
    /// The bytes are not a component, or it uses features the host does not allow.
    #[error("{plugin} does not compile: {message}")]
    Compile {
        /// `name@version`.
        plugin: String,
        /// The compiler's words.
        message: String,
    },
    /// It imports what its manifest does not ask for, or what there is not.
    #[error("{plugin} imports `{import}`, which {reason}")]
    Import {
        /// `name@version`.
        plugin: String,
        /// Name of the import.
        import: String,
        /// Why it is not to be had.
        reason: ImportRefusal,
    },
    /// An import or export has another shape than the interface.
    #[error("{plugin} does not fit the {kind} world: {message}")]
    World {
        /// `name@version`.
        plugin: String,
        /// The kind it says it is.
        kind: PluginKind,
        /// Which import or export, and how.
        message: String,
    },
    /// Its probe instance failed.
    #[error("{plugin} fails its init: {fault}")]
    Init {
        /// `name@version`.
        plugin: String,
        /// How.
        fault: FaultKind,
    },
    /// It says another name or version than its manifest.
    #[error("{plugin} says that it is {said}")]
    Identity {
        /// `name@version` of the manifest.
        plugin: String,
        /// What `init` answered, cut.
        said: String,
    },
    /// There are too many plugins, or versions of this one.
    #[error("{plugin} is one too many: the limit is {limit} {unit}")]
    TooMany {
        /// `name@version`.
        plugin: String,
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
}

/// Why an import is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportRefusal {
    /// A capability that the manifest does not list.
    #[error("its manifest does not ask for (capabilities = [\"{0}\"])")]
    NotAsked(Capability),
    /// A capability that the operator did not grant.
    #[error("the operator did not grant (grants = [\"{0}\"])")]
    NotGranted(Capability),
    /// A capability that the embedder does not have.
    #[error("this host cannot lend ({0})")]
    NotAvailable(Capability),
    /// An import of ours that this kind does not get.
    #[error("a {0} does not get")]
    NotForKind(PluginKind),
    /// WASI.
    #[error("is WASI, and plugins get no WASI")]
    Wasi,
    /// Nothing of ours.
    #[error("this host does not know")]
    Unknown,
}

/// A swap was not made. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// No plugin of that name.
    #[error("no plugin is called {name}")]
    UnknownPlugin {
        /// As asked.
        name: String,
    },
    /// The plugin is there, the version is not.
    #[error("{name} has no version {version} installed; installed: {installed}")]
    UnknownVersion {
        /// The plugin.
        name: String,
        /// As asked.
        version: String,
        /// What there is.
        installed: String,
    },
    /// There is nothing to go back to.
    #[error("{name} has no previous version to go back to")]
    NoPrevious {
        /// The plugin.
        name: String,
    },
    /// It is not active.
    #[error("{name} is not active")]
    NotActive {
        /// The plugin.
        name: String,
    },
    /// There is one place for this kind, and it is taken.
    #[error("{name} is a {kind}, and {active} is the active one: deactivate it first")]
    PlaceTaken {
        /// The plugin.
        name: String,
        /// Router or scorer.
        kind: PluginKind,
        /// Who has the place.
        active: String,
    },
}
