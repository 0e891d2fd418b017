//! One call of cargo for all crates of a workspace, and what it says it made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::environment::cargo_home;
use crate::{BuildError, TARGET, Toolchain};

/// Bytes of stack of a plugin. The linker's default of 1 MiB would be most of an instance.
const STACK_BYTES: u32 = 256 << 10;

/// What a plugin is compiled with, whatever its workspace says: small, and without unwinding.
const PROFILE: &[&str] = &[
    "profile.release.opt-level='s'",
    "profile.release.lto='fat'",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.debug=false",
    "profile.release.strip='debuginfo'",
    "profile.release.incremental=false",
    "profile.release.overflow-checks=false",
];

/// A workspace with those of its crates that are to be built.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    workspace_root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A crate, as cargo sees it.
#[derive(Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Clone, Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Package {
    /// The folder of the crate.
    pub(crate) fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }

    fn makes_module(&self) -> bool {
        self.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
    }
}

#[derive(Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Sorts crate folders by workspace, with one call of cargo for each workspace.
pub(crate) fn workspaces(
    toolchain: &Toolchain,
    crate_dirs: &[PathBuf],
) -> Result<Vec<Workspace>, BuildError> {
    let mut left = Vec::new();
    for dir in crate_dirs {
        left.push(dir.canonicalize().map_err(BuildError::failed("open", dir))?);
    }
    let mut found: Vec<Workspace> = Vec::new();
    while let Some(dir) = left.first().cloned() {
        let mut workspace = metadata(toolchain, &dir)?;
        let wanted = std::mem::take(&mut workspace.packages);
        let is_left = |package: &Package| left.iter().any(|dir| dir == package.dir());
        workspace.packages = wanted.into_iter().filter(is_left).collect();
        let is_found = |dir: &PathBuf| workspace.packages.iter().any(|p| p.dir() == dir);
        if !is_found(&dir) {
            return Err(BuildError::Crate { path: dir, reason: "not a crate of its workspace" });
        }
        if let Some(package) = workspace.packages.iter().find(|package| !package.makes_module()) {
            let reason = "the crate needs `[lib] crate-type = [\"cdylib\"]`";
            return Err(BuildError::Crate { path: package.dir().to_owned(), reason });
        }
        left.retain(|dir| !is_found(dir));
        found.push(workspace);
    }
    Ok(found)
}

fn metadata(toolchain: &Toolchain, dir: &Path) -> Result<Workspace, BuildError> {
    let mut command = toolchain.cargo("metadata", dir);
    command.args(["--format-version=1", "--no-deps"]);
    let output = run(command.stderr(Stdio::piped()))?;
    serde_json::from_slice(&output)
        .map_err(|error| BuildError::CargoOutput { command: "metadata", reason: error.to_string() })
}

/// Compiles a workspace's crates and gives the module of each folder. Cargo's messages go to stderr
/// as they come.
pub(crate) fn compile(
    toolchain: &Toolchain,
    workspace: &Workspace,
    target_dir: &Path,
) -> Result<HashMap<PathBuf, PathBuf>, BuildError> {
    let mut command = toolchain.cargo("build", &workspace.workspace_root);
    command.args(["--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.arg("--target-dir").arg(target_dir);
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    for package in &workspace.packages {
        command.arg("-p").arg(format!("{}@{}", package.name, package.version));
    }
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    if let Some(home) = cargo_home() {
        // Panic messages name source files: without this the same source gives another component
        // for each user.
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let output = run(command.stderr(Stdio::inherit()))?;
    let mut modules = HashMap::new();
    for line in String::from_utf8_lossy(&output).lines() {
        let Ok(artifact) = serde_json::from_str::<Artifact>(line) else { continue };
        let is_module = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "wasm");
        if artifact.reason == "compiler-artifact"
            && let Some(module) = artifact.filenames.into_iter().find(is_module)
            && let Some(dir) = artifact.manifest_path.parent()
        {
            modules.insert(dir.to_owned(), module);
        }
    }
    Ok(modules)
}

/// Runs `command` and gives what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let output = child
        .and_then(std::process::Child::wait_with_output)
        .map_err(|source| BuildError::Run { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let subcommand = command.get_args().next().unwrap_or_default().to_string_lossy();
    let errors = String::from_utf8_lossy(&output.stderr);
    let detail =
        if errors.trim().is_empty() { String::new() } else { format!(": {}", errors.trim()) };
    let command = format!("{program} {subcommand}");
    Err(BuildError::Cargo { command, status: output.status, detail })
}
