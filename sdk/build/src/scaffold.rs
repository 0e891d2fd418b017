//! A new plugin crate: small, whole, and tested, for an author to change. Nothing that is already there
//! is touched.

use std::path::{Path, PathBuf};

use crate::manifest::{MANIFEST_FILE, NAME_RULE, is_name};
use crate::{BuildError, Kind};

/// Version of `mortise-sdk` that a new crate asks the registry for.
const SDK_VERSION: &str = "0.1";
/// Names that cargo refuses or that would stand for another crate.
const RESERVED: &[&str] = &["alloc", "core", "mortise-sdk", "proc-macro", "serde", "std", "test"];

/// What a kind starts from.
struct Template {
    source: &'static str,
    config: &'static str,
    description: &'static str,
    capabilities: &'static str,
}

fn template(kind: Kind) -> Template {
    let (source, config, description) = match kind {
        Kind::Router => (
            include_str!("../templates/router.rs"),
            include_str!("../templates/router.toml"),
            "Sends prompts with certain words to an adapter.",
        ),
        Kind::Preprocessor => (
            include_str!("../templates/preprocessor.rs"),
            include_str!("../templates/preprocessor.toml"),
            "Gives conversations a system message and refuses some words.",
        ),
        Kind::Postprocessor => (
            include_str!("../templates/postprocessor.rs"),
            include_str!("../templates/postprocessor.toml"),
            "Drops white space at the end of an answer.",
        ),
        Kind::Scorer => (
            include_str!("../templates/scorer.rs"),
            include_str!("../templates/scorer.toml"),
            "Credits contributors by tokens and documents.",
        ),
        Kind::Agent => (
            include_str!("../templates/agent.rs"),
            include_str!("../templates/agent.toml"),
            "Asks the model for a draft, and to improve it.",
        ),
    };
    let capabilities = if kind == Kind::Agent { "\"generate\"" } else { "" };
    Template { source, config, description, capabilities }
}

/// Writes a crate called `name` into `dir`, which must be empty or not exist: `Cargo.toml`,
/// `plugin.toml`, `src/lib.rs` with a test, and `.gitignore`. It depends on the SDK at the path `sdk`, or
/// on the published one. Inside a workspace that has `dir` among its members the crate is one of them;
/// elsewhere it is its own workspace.
///
/// # Errors
/// The name is not one, `dir` has something in it, or a file cannot be written.
pub fn scaffold(kind: Kind, name: &str, dir: &Path, sdk: Option<&Path>) -> Result<(), BuildError> {
    check_name(name)?;
    if dir.exists() {
        let mut entries = std::fs::read_dir(dir).map_err(BuildError::failed("read", dir))?;
        if entries.next().is_some() {
            return Err(BuildError::NotEmpty { path: dir.to_owned() });
        }
    }
    let sdk = sdk.map(find_sdk).transpose()?;
    let sources = dir.join("src");
    std::fs::create_dir_all(&sources).map_err(BuildError::failed("create", &sources))?;
    let is_member = is_member(&dir.canonicalize().map_err(BuildError::failed("find", dir))?);
    let template = template(kind);
    let files = [
        ("Cargo.toml", cargo_toml(name, &template, sdk.as_deref(), is_member)),
        (MANIFEST_FILE, plugin_toml(kind, name, &template)),
        ("src/lib.rs", template.source.replace("{description}", template.description)),
        (".gitignore", "/target\n".to_owned()),
    ];
    for (file, text) in files {
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(BuildError::failed("write", &path))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), BuildError> {
    let refuse = |expected| Err(BuildError::Name { name: name.to_owned(), expected });
    if !is_name(name) {
        return refuse(NAME_RULE);
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return refuse("a letter first, for it names a crate as well");
    }
    if RESERVED.contains(&name) {
        return refuse("another one, for there is a crate of this name");
    }
    Ok(())
}

/// The SDK's folder, which must be there.
fn find_sdk(sdk: &Path) -> Result<PathBuf, BuildError> {
    let path = sdk.canonicalize().map_err(BuildError::failed("find", sdk))?;
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    if !manifest.contains("name = \"mortise-sdk\"") {
        return Err(BuildError::Crate { path, reason: "this is not mortise-sdk" });
    }
    Ok(path)
}

fn cargo_toml(name: &str, template: &Template, sdk: Option<&Path>, is_member: bool) -> String {
    let sdk = match sdk {
        Some(path) => format!("{{ path = {} }}", quoted(&path.to_string_lossy())),
        None => quoted(SDK_VERSION),
    };
    let serde = if template.source.contains("use serde::") {
        "serde = { version = \"1\", features = [\"derive\"] }\n"
    } else {
        ""
    };
    let workspace = if is_member { "" } else { "\n[workspace]\n" };
    let description = quoted(template.description);
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         description = {description}\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\nmortise-sdk = {sdk}\n{serde}{workspace}"
    )
}

fn plugin_toml(kind: Kind, name: &str, template: &Template) -> String {
    let (description, capabilities) = (quoted(template.description), template.capabilities);
    let config = match template.config {
        "" => String::new(),
        config => format!("\n[config]\n{config}"),
    };
    format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\nkind = \"{kind}\"\n\
         capabilities = [{capabilities}]\ndescription = {description}\n{config}"
    )
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Whether the nearest workspace above `dir` counts it among its members.
fn is_member(dir: &Path) -> bool {
    dir.ancestors().skip(1).find_map(|root| workspace_has(root, dir)).unwrap_or(false)
}

/// `None` if `root` is no workspace.
fn workspace_has(root: &Path, dir: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = text.parse().ok()?;
    let workspace = manifest.get("workspace")?.as_table()?;
    let inside = dir.strip_prefix(root).ok()?;
    let lists = |key: &str| {
        let patterns = workspace.get(key).and_then(toml::Value::as_array);
        patterns.into_iter().flatten().filter_map(toml::Value::as_str).any(|p| matches(p, inside))
    };
    Some(lists("members") && !lists("exclude"))
}

/// Whether a pattern such as `plugins/*` names the folder. `*` stands for any part of one name.
fn matches(pattern: &str, folder: &Path) -> bool {
    let names: Vec<_> = folder.iter().map(|name| name.to_string_lossy()).collect();
    let patterns: Vec<&str> =
        pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    names.len() == patterns.len()
        && patterns.iter().zip(&names).all(|(pattern, name)| match pattern.split_once('*') {
            None => pattern == name,
            Some((start, end)) => {
                name.len() >= start.len() + end.len()
                    && name.starts_with(start)
                    && name.ends_with(end)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    #[test]
    fn every_kind_gives_a_manifest_that_fits_its_crate() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        for kind in Kind::ALL {
            let dir = temporary.path().join(kind.as_str());
            scaffold(kind, "my-plugin", &dir, None).expect("scaffolds");
            let read = |file: &str| std::fs::read_to_string(dir.join(file)).expect(file);
            let manifest = Manifest::parse(&read("plugin.toml"), &dir).expect("manifest");
            assert_eq!((manifest.name.as_str(), manifest.kind), ("my-plugin", kind));
            let cargo: toml::Table = read("Cargo.toml").parse().expect("TOML");
            assert_eq!(cargo["dependencies"]["mortise-sdk"].as_str(), Some(SDK_VERSION));
            assert!(cargo.contains_key("workspace"), "stands alone");
            assert!(!read("src/lib.rs").contains("{description}"));
            let again = scaffold(kind, "my-plugin", &dir, None).expect_err("not empty");
            assert!(again.to_string().contains("not empty"), "{again}");
        }
    }

    #[test]
    fn the_published_version_is_this_one() {
        let sdk: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
        let version = sdk["package"]["version"].as_str().expect("version");
        assert!(version.starts_with(&format!("{SDK_VERSION}.")), "{version}");
    }

    #[test]
    fn names_that_cannot_be_crates_are_refused() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        for (name, part) in [
            ("", "1 to 64"),
            ("My-Plugin", "1 to 64"),
            ("../x", "1 to 64"),
            ("3d", "a letter first"),
            ("test", "another one"),
            ("serde", "another one"),
        ] {
            let dir = temporary.path().join("new");
            let error = scaffold(Kind::Agent, name, &dir, None).expect_err(name).to_string();
            assert!(error.contains(part), "{error}");
            assert!(!dir.exists(), "{name}");
        }
    }

    #[test]
    fn a_path_that_is_not_the_sdk_is_refused() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let dir = temporary.path().join("new");
        for sdk in [temporary.path().to_owned(), temporary.path().join("none")] {
            let error = scaffold(Kind::Agent, "x", &dir, Some(&sdk)).expect_err("refused");
            assert!(error.to_string().contains(&*sdk.to_string_lossy()), "{error}");
            assert!(!dir.exists());
        }
    }

    #[test]
    fn members_of_a_workspace_are_known() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let root = temporary.path().canonicalize().expect("folder");
        let text = "[workspace]\nmembers = [\"plugins/*\", \"one\"]\nexclude = [\"plugins/out\"]\n";
        std::fs::write(root.join("Cargo.toml"), text).expect("writes");
        for (folder, expect) in [
            ("plugins/a", true),
            ("one", true),
            ("plugins/out", false),
            ("plugins/a/b", false),
            ("plugins", false),
            ("two", false),
        ] {
            assert_eq!(is_member(&root.join(folder)), expect, "{folder}");
        }
        let dir = root.join("plugins/new");
        scaffold(Kind::Router, "new", &dir, None).expect("scaffolds");
        let text = std::fs::read_to_string(dir.join("Cargo.toml")).expect("reads");
        assert!(!text.contains("[workspace]"), "{text}");
    }
}
