//! Crates in, plugin folders out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use semver::Version;

use crate::cargo::{self, Package};
use crate::manifest::MANIFEST_FILE;
use crate::{BuildError, Kind, Manifest, Toolchain, component, output};

/// A plugin that was built and checked.
#[derive(Clone, Debug)]
pub struct BuiltPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its kind.
    pub kind: Kind,
    /// The folder that holds its `plugin.toml` and its component.
    pub dir: PathBuf,
    /// Size of the component in bytes.
    pub component_bytes: usize,
    /// The interfaces it imports, with their versions.
    pub imports: Vec<String>,
    /// Whether a file in `dir` changed.
    pub changed: bool,
}

/// How plugins are built.
#[derive(Clone, Debug)]
pub struct Builder {
    toolchain: Toolchain,
    target_dir: PathBuf,
}

impl Builder {
    /// Builds with `toolchain` in `target_dir`, which must not be the target directory of a cargo
    /// that waits for this build. Sharing one among builds saves compiling the libraries again.
    #[must_use]
    pub fn new(toolchain: Toolchain, target_dir: impl Into<PathBuf>) -> Self {
        Self { toolchain, target_dir: target_dir.into() }
    }

    /// Builds each crate and writes `<out_dir>/<name>/{plugin.toml, plugin.wasm}`, with one call of
    /// cargo for the crates of a workspace. Nothing is written unless all of them are sound. Crates
    /// that did not change cost a look.
    ///
    /// # Errors
    /// A folder is no plugin crate, a crate does not compile, its manifest does not fit it, or its
    /// component has an import or lacks an export; or a file cannot be written.
    pub fn build(
        &self,
        crate_dirs: &[PathBuf],
        out_dir: &Path,
    ) -> Result<Vec<BuiltPlugin>, BuildError> {
        let target_dir = std::path::absolute(&self.target_dir)
            .map_err(BuildError::failed("find", &self.target_dir))?;
        let mut sources = Vec::new();
        let workspaces = cargo::workspaces(&self.toolchain, crate_dirs)?;
        for workspace in &workspaces {
            for package in &workspace.packages {
                sources.push(Source::read(package)?);
            }
        }
        let mut names = BTreeSet::new();
        for source in &sources {
            if !names.insert(&source.manifest.name) {
                return Err(BuildError::Twice { name: source.manifest.name.clone() });
            }
        }
        let mut modules = std::collections::HashMap::new();
        for workspace in &workspaces {
            modules.extend(cargo::compile(&self.toolchain, workspace, &target_dir)?);
        }
        let mut components = Vec::new();
        for source in &sources {
            let module = modules.get(&source.dir).ok_or_else(|| BuildError::CargoOutput {
                command: "build",
                reason: format!("no module of {}", source.manifest.name),
            })?;
            let module = std::fs::read(module).map_err(BuildError::failed("read", module))?;
            components.push(component::encode(&module, &source.manifest)?);
        }
        let written = sources.into_iter().zip(components);
        written.map(|(source, component)| source.write(component, out_dir)).collect()
    }
}

/// A plugin's folder, read.
struct Source {
    dir: PathBuf,
    text: String,
    manifest: Manifest,
}

impl Source {
    fn read(package: &Package) -> Result<Self, BuildError> {
        let path = package.dir().join(MANIFEST_FILE);
        let text = std::fs::read_to_string(&path).map_err(BuildError::failed("read", &path))?;
        let manifest = Manifest::parse(&text, &path)?;
        manifest.check_crate(&path, &package.name, &package.version)?;
        Ok(Self { dir: package.dir().to_owned(), text, manifest })
    }

    /// The component goes first: a reader between the two finds a version that does not fit, and
    /// refuses it, rather than an old component under a new name.
    fn write(
        self,
        component: component::Component,
        out_dir: &Path,
    ) -> Result<BuiltPlugin, BuildError> {
        let manifest = self.manifest;
        let dir = out_dir.join(&manifest.name);
        std::fs::create_dir_all(&dir).map_err(BuildError::failed("create", &dir))?;
        let new_component = output::write(&dir.join(&manifest.component), &component.bytes)?;
        let new_manifest = output::write(&dir.join(MANIFEST_FILE), self.text.as_bytes())?;
        Ok(BuiltPlugin {
            name: manifest.name,
            version: manifest.version,
            kind: manifest.kind,
            dir,
            component_bytes: component.bytes.len(),
            imports: component.imports,
            changed: new_component || new_manifest,
        })
    }
}

/// Where plugins for `out_dir` are compiled unless somebody says otherwise: `plugin-build` beside it.
#[must_use]
pub fn default_target_dir(out_dir: &Path) -> PathBuf {
    let out_dir = std::path::absolute(out_dir).unwrap_or_else(|_| out_dir.to_owned());
    out_dir.with_file_name("plugin-build")
}

/// Builds with the toolchain that [`Toolchain::detect`] finds, in [`default_target_dir`].
///
/// # Errors
/// There is no toolchain, or as [`Builder::build`].
pub fn build(crate_dirs: &[PathBuf], out_dir: &Path) -> Result<Vec<BuiltPlugin>, BuildError> {
    let Some(first) = crate_dirs.first() else { return Ok(Vec::new()) };
    let toolchain = Toolchain::detect(first)?;
    Builder::new(toolchain, default_target_dir(out_dir)).build(crate_dirs, out_dir)
}
