//! `plugin.toml` as an author writes it, and the crate it must fit. The host reads it again and
//! trusts nothing of this.

use std::collections::BTreeSet;
use std::path::Path;

use semver::Version;
use serde::Deserialize;

use crate::BuildError;

/// File name of a manifest.
pub(crate) const MANIFEST_FILE: &str = "plugin.toml";
/// Longest name of a plugin, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The rule for names.
pub(crate) const NAME_RULE: &str = "1 to 64 lower-case letters, digits and single `-` between them";

/// The five kinds of plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
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

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Router, Self::Preprocessor, Self::Postprocessor, Self::Scorer, Self::Agent];

    /// As manifests spell it, which is also the name of its interface.
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

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        kind.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("`{name}` is no kind of plugin: there are {all}")
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something a plugin may ask the operator for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// `mortise:cap/tokenizer`.
    Tokenizer,
    /// `mortise:cap/generate`.
    Generate,
    /// `mortise:cap/corpus`.
    Corpus,
}

impl Capability {
    /// As manifests spell it, which is also the name of its interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Generate => "generate",
            Self::Corpus => "corpus",
        }
    }
}

fn component_default() -> String {
    "plugin.wasm".to_owned()
}

/// What a plugin says about itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the plugin and of its crate.
    pub name: String,
    /// Version of the plugin and of its crate.
    pub version: Version,
    /// Its kind.
    pub kind: Kind,
    /// What it asks for.
    #[serde(default)]
    pub capabilities: BTreeSet<Capability>,
    /// One line for operators.
    #[serde(default)]
    pub description: String,
    /// Default settings.
    #[serde(default)]
    pub config: toml::Table,
    /// File name of the component.
    #[serde(default = "component_default")]
    pub component: String,
}

impl Manifest {
    /// Parses the text of `path`.
    ///
    /// # Errors
    /// It is not a manifest, with the line; or a name in it is not one.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, BuildError> {
        let refuse = |reason: String| BuildError::Manifest { path: path.to_owned(), reason };
        let manifest: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if !is_name(&manifest.name) {
            return Err(refuse(format!("the name `{}` is not {NAME_RULE}", manifest.name)));
        }
        if !is_file_name(&manifest.component) {
            return Err(refuse(format!("`{}` is not a plain file name", manifest.component)));
        }
        Ok(manifest)
    }

    /// Checks that the crate has the same name and version, which its component will report.
    ///
    /// # Errors
    /// They differ.
    pub(crate) fn check_crate(
        &self,
        path: &Path,
        name: &str,
        version: &str,
    ) -> Result<(), BuildError> {
        let refuse = |reason: String| BuildError::Manifest { path: path.to_owned(), reason };
        if self.name != name {
            return Err(refuse(format!("the name is `{}`, but the crate is `{name}`", self.name)));
        }
        if self.version.to_string() != version {
            let ours = &self.version;
            return Err(refuse(format!("the version is {ours}, but the crate's is {version}")));
        }
        Ok(())
    }
}

/// Whether a plugin may be called so.
pub(crate) fn is_name(name: &str) -> bool {
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

    const GOOD: &str = "name = \"redact\"\nversion = \"0.1.0\"\nkind = \"preprocessor\"\n";

    fn check(text: &str, expect: Result<(), &str>) {
        let path = Path::new("p/plugin.toml");
        let parsed = Manifest::parse(text, path)
            .and_then(|manifest| manifest.check_crate(path, "redact", "0.1.0"));
        match (parsed, expect) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} does not say {part}");
            }
            (parsed, expect) => panic!("{text}: {parsed:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn manifests() {
        check(GOOD, Ok(()));
        check(&format!("{GOOD}capabilities = [\"corpus\"]\n[config]\nx = [1]\n"), Ok(()));
        check("", Err("missing field"));
        check(&format!("{GOOD}colour = 1\n"), Err("unknown field `colour`"));
        check(&GOOD.replace("preproc", "proc"), Err("unknown variant `processor`"));
        check(&GOOD.replace("redact", "Redact"), Err("the name `Redact`"));
        check(&GOOD.replace("redact", "other"), Err("the crate is `redact`"));
        check(&GOOD.replace("0.1.0", "0.2.0"), Err("the crate's is 0.1.0"));
        check(&format!("{GOOD}component = \"../x\"\n"), Err("plain file name"));
    }

    #[test]
    fn kinds() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let error = "Router".parse::<Kind>().expect_err("no kind");
        assert!(error.contains("`Router`") && error.contains("postprocessor"), "{error}");
    }

    #[test]
    fn names() {
        for name in ["a", "a-b", "closest-corpus", "x9"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "é"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name(&"a".repeat(64)));
        assert!(!is_name(&"a".repeat(65)));
    }
}
