//! Components for tests: every plugin of `plugins/` and every guest of `tests/guests/`, the guests in
//! several versions, built when this crate is.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

include!(concat!(env!("OUT_DIR"), "/names.rs"));

/// Folder of `<plugin>/{plugin.toml, plugin.wasm}` for each of [`PLUGINS`]; good as a plugin folder of
/// the server as it is.
pub const PLUGINS_DIR: &str = concat!(env!("OUT_DIR"), "/plugins");
/// Folder of `<version>/<guest>/{plugin.toml, plugin.wasm}` for each of [`GUESTS`].
pub const GUESTS_DIR: &str = concat!(env!("OUT_DIR"), "/guests");

/// The folder of a shipped plugin.
///
/// # Panics
/// There is none of this name.
#[must_use]
pub fn plugin(name: &str) -> PathBuf {
    assert!(PLUGINS.contains(&name), "no plugin {name}: there are {PLUGINS:?}");
    Path::new(PLUGINS_DIR).join(name)
}

/// The folder of a guest.
///
/// # Panics
/// There is none of this name and version.
#[must_use]
pub fn guest(name: &str, version: &str) -> PathBuf {
    assert!(GUESTS.contains(&(name, version)), "no guest {name}@{version}: there are {GUESTS:?}");
    Path::new(GUESTS_DIR).join(version).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_component_of_its_version() {
        assert_eq!(PLUGINS.len(), 5, "{PLUGINS:?}");
        let plugins = PLUGINS.iter().map(|name| (*name, plugin(name)));
        let guests = GUESTS.iter().map(|(name, version)| (*name, guest(name, version)));
        for (name, dir) in plugins.chain(guests) {
            let manifest = std::fs::read_to_string(dir.join("plugin.toml")).expect("manifest");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{manifest}");
            let component = std::fs::read(dir.join("plugin.wasm")).expect("component");
            // The preamble of a component, which differs from a module's in its last bytes.
            assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0", "{name}");
            assert!(component.len() < 400 << 10, "{name} has {} bytes", component.len());
        }
        for (name, version) in GUESTS {
            let manifest = guest(name, version).join("plugin.toml");
            let manifest = std::fs::read_to_string(manifest).expect("manifest");
            assert!(manifest.contains(&format!("version = \"{version}\"")), "{manifest}");
            // A component says its version in its code, so a mix-up of two builds shows.
            let component = guest(name, version).join("plugin.wasm");
            let component = std::fs::read(component).expect("component");
            let says = component.windows(version.len()).any(|bytes| bytes == version.as_bytes());
            assert!(says, "{name} does not say that it is {version}");
        }
    }

    #[test]
    fn components_import_only_what_they_use() {
        let check = |name: &str, expect: &[&str]| {
            let (_, imports) = IMPORTS.iter().find(|(known, _)| *known == name).expect("plugin");
            assert_eq!(*imports, expect, "{name}");
        };
        check("span-rarity", &["mortise:core/types@0.1.0", "mortise:core/logging@0.1.0"]);
        for (name, imports) in IMPORTS {
            let capabilities = |capability: &str| {
                imports
                    .iter()
                    .any(|import| import.starts_with(&format!("mortise:cap/{capability}")))
            };
            assert_eq!(capabilities("corpus"), *name == "closest-corpus", "{imports:?}");
            assert_eq!(capabilities("generate"), *name == "solver", "{imports:?}");
            assert!(!capabilities("tokenizer"), "{imports:?}");
        }
    }
}
