//! `plugin.toml`: what a plugin says about itself. Everything in it is a claim: the digest is taken
//! from the component, the name and version are asked of `init`, and grants are the operator's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::error::ManifestError;

/// Longest `plugin.toml`, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Longest name of a plugin, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;
/// File name of a manifest.
pub const MANIFEST_FILE: &str = "plugin.toml";

/// The five kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    /// Decides who answers.
    Router,
    /// Sees the conversation before the model.
    Preprocessor,
    /// Sees the answer as it streams.
    Postprocessor,
    /// Turns evidence into shares.
    Scorer,
    /// Answers in the model's place.
    Agent,
}

impl PluginKind {
    /// As manifests spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Preprocessor => "preprocessor",
            Self::Postprocessor => "postprocessor",
            Self::Scorer => "scorer",
            Self::Agent => "agent",
        }
    }
}

impl std::fmt::Display for PluginKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn component_default() -> String {
    "plugin.wasm".to_owned()
}

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Lower-case letters, digits and single `-` between them.
    pub name: String,
    /// Semantic version.
    pub version: Version,
    /// What it is.
    pub kind: PluginKind,
    /// What it asks for.
    #[serde(default)]
    pub capabilities: BTreeSet<Capability>,
    /// One line for operators.
    #[serde(default)]
    pub description: String,
    /// Default settings.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// File name of the component, beside the manifest.
    #[serde(default = "component_default")]
    pub component: String,
}

impl Manifest {
    /// Reads and checks `dir/plugin.toml`.
    ///
    /// # Errors
    /// The file cannot be read or is too long, is not a manifest (with the line), or a field is out
    /// of its bounds.
    pub fn read(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = crate::file::read_bounded(&path, MANIFEST_BYTES_MAX)?;
        let text =
            String::from_utf8(bytes).map_err(|_| ManifestError::Utf8 { path: path.clone() })?;
        Self::parse(&text, &path)
    }

    /// Parses and checks the text of a manifest; `path` is for errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// Where the component is.
    #[must_use]
    pub fn component_path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.component)
    }

    fn check(&self, path: &Path) -> Result<(), ManifestError> {
        let field = |field: &'static str, expected: &str, got: &str| {
            Err(ManifestError::Field {
                path: path.to_owned(),
                field,
                expected: expected.to_owned(),
                got: got.chars().take(80).collect(),
            })
        };
        if !is_name(&self.name) {
            let expected = "1 to 64 lower-case letters, digits and single `-` between them";
            return field("name", expected, &self.name);
        }
        if self.description.len() > DESCRIPTION_BYTES_MAX {
            return field("description", "at most 1024 bytes", &self.description);
        }
        if !is_file_name(&self.component) {
            return field("component", "a plain file name", &self.component);
        }
        if let Some(capability) = self.capabilities.get(&Capability::Generate)
            && self.kind != PluginKind::Agent
        {
            return field("capabilities", "`generate` in agents only", capability.as_str());
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    name.len() <= NAME_BYTES_MAX && name.split('-').all(word)
}

fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"closest-corpus\"\nversion = \"0.1.0\"\nkind = \"router\"\n";

    fn check(text: &str, expect: Result<(), &str>) {
        let parsed = Manifest::parse(text, Path::new("p/plugin.toml"));
        match (parsed, expect) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} does not say {part}");
            }
            (parsed, expect) => panic!("{text}: {parsed:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn good_ones() {
        check(GOOD, Ok(()));
        check(&format!("{GOOD}capabilities = [\"corpus\", \"tokenizer\"]\n"), Ok(()));
        check(&format!("{GOOD}[config]\nmin = 3\nwords = [\"a\"]\n"), Ok(()));
        check(&GOOD.replace("router", "agent").replace("0.1.0", "1.2.3-rc.1+b"), Ok(()));
    }

    #[test]
    fn bad_ones_say_which_field_or_line() {
        check("", Err("missing field `name`"));
        check(&format!("{GOOD}colour = 1\n"), Err("unknown field `colour`"));
        check(&format!("{GOOD}colour = 1\n"), Err("line 4"));
        check(&GOOD.replace("0.1.0", "0.1"), Err("version"));
        check(&GOOD.replace("router", "filter"), Err("unknown variant `filter`"));
        for name in ["", "A", "a--b", "-a", "a-", "a/b", "..", "a b"] {
            check(&GOOD.replace("closest-corpus", name), Err("name"));
        }
        check(&GOOD.replace("closest-corpus", &"a".repeat(64)), Ok(()));
        check(&GOOD.replace("closest-corpus", &"a".repeat(65)), Err("name"));
        for file in ["../x.wasm", "/etc/passwd", "a/b.wasm", "", "..", ".x", "a\\\\b"] {
            check(&format!("{GOOD}component = \"{file}\"\n"), Err("component"));
        }
        check(&format!("{GOOD}capabilities = [\"wasi\"]\n"), Err("unknown variant `wasi`"));
        check(&format!("{GOOD}capabilities = [\"generate\"]\n"), Err("agents only"));
        let long = "d".repeat(1025);
        check(&format!("{GOOD}description = \"{long}\"\n"), Err("description"));
    }
}
