//! Why a plugin could not be built.

use std::path::PathBuf;

/// Why a plugin could not be built, with the file or plugin it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no toolchain that makes wasm.
    #[error(
        "no toolchain for {target}: run `rustup target add {target}`, or on Debian \
         `apt-get install {packages}`"
    )]
    NoToolchain {
        /// The target.
        target: &'static str,
        /// Debian's packages.
        packages: &'static str,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Cargo failed; what it printed says why.
    #[error("`{command}` failed with {status}{detail}")]
    Cargo {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its errors, if they were not printed as they came.
        detail: String,
    },
    /// Cargo printed something that is not what it documents.
    #[error("cannot understand the output of `cargo {command}`: {reason}")]
    CargoOutput {
        /// The subcommand.
        command: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{action} {path}: {source}", path = path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A `plugin.toml` is not a manifest, or does not fit its crate.
    #[error("{path}: {reason}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder is not a crate that makes a plugin.
    #[error("{path}: {reason}", path = path.display())]
    Crate {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// Two crates would be written to the same place.
    #[error("two of the crates are called `{name}`")]
    Twice {
        /// Their name.
        name: String,
    },
    /// The module could not be made a component.
    #[error("plugin {plugin}: cannot make a component: {reason}")]
    Component {
        /// The plugin.
        plugin: String,
        /// The encoder's reasons, outermost first.
        reason: String,
    },
    /// The component imports what it may not.
    #[error("plugin {plugin} imports `{import}`: {reason}")]
    Import {
        /// The plugin.
        plugin: String,
        /// The import.
        import: String,
        /// Why it may not.
        reason: &'static str,
    },
    /// The component lacks an export of its kind.
    #[error("plugin {plugin} does not export `{export}`, which a {kind} must")]
    Export {
        /// The plugin.
        plugin: String,
        /// What is missing.
        export: String,
        /// Its kind.
        kind: &'static str,
    },
    /// A name that no plugin may have.
    #[error("`{name}` is no name for a plugin: it must be {expected}")]
    Name {
        /// The name.
        name: String,
        /// The rule.
        expected: &'static str,
    },
    /// The folder for a new crate has something in it.
    #[error("{path} is not empty", path = path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl BuildError {
    /// Wraps an error of the file system: `failed("read", path)`.
    pub(crate) fn failed(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
