//! From a core module to a component that fits its manifest.

use wit_component::{ComponentEncoder, DecodedWasm};

use crate::manifest::Capability;
use crate::{BuildError, Kind, Manifest};

/// A component and what it imports.
pub(crate) struct Component {
    pub(crate) bytes: Vec<u8>,
    pub(crate) imports: Vec<String>,
}

/// Encodes and validates a component, and checks its imports and exports.
pub(crate) fn encode(module: &[u8], manifest: &Manifest) -> Result<Component, BuildError> {
    let refuse = |error: &dyn std::fmt::Display| BuildError::Component {
        plugin: manifest.name.clone(),
        reason: error.to_string(),
    };
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(ComponentEncoder::encode)
        .map_err(|error| refuse(&format!("{error:#}")))?;
    let decoded = wit_component::decode(&bytes).map_err(|error| refuse(&format!("{error:#}")))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(refuse(&"the encoder made no component"));
    };
    let world = &resolve.worlds[world];
    let imports: Vec<String> =
        world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
    let exports: Vec<String> =
        world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
    check_imports(&imports, manifest)?;
    check_exports(&exports, manifest)?;
    Ok(Component { bytes, imports })
}

/// An interface's name without its version.
fn unversioned(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn check_imports(imports: &[String], manifest: &Manifest) -> Result<(), BuildError> {
    for import in imports {
        let interface = unversioned(import);
        let asked = |capability: &str| {
            manifest.capabilities.iter().map(|c| Capability::as_str(*c)).any(|c| c == capability)
        };
        let reason = if interface == "mortise:core/env" && manifest.kind == Kind::Scorer {
            Some("scorers have no clock and no randomness, so that they can be run again")
        } else if interface.starts_with("mortise:core/") {
            None
        } else if let Some(capability) = interface.strip_prefix("mortise:cap/") {
            (!asked(capability)).then_some("its plugin.toml does not ask for this capability")
        } else {
            Some("it is not part of the plugin contract, and there is no WASI")
        };
        if let Some(reason) = reason {
            let (plugin, import) = (manifest.name.clone(), import.clone());
            return Err(BuildError::Import { plugin, import, reason });
        }
    }
    Ok(())
}

fn check_exports(exports: &[String], manifest: &Manifest) -> Result<(), BuildError> {
    for interface in ["lifecycle", manifest.kind.as_str()] {
        let export = format!("mortise:hooks/{interface}");
        if !exports.iter().any(|name| unversioned(name) == export) {
            let (plugin, kind) = (manifest.name.clone(), manifest.kind.as_str());
            return Err(BuildError::Export { plugin, export, kind });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn manifest(kind: &str, capabilities: &str) -> Manifest {
        let text = format!(
            "name = \"p\"\nversion = \"1.0.0\"\nkind = \"{kind}\"\ncapabilities = [{capabilities}]"
        );
        Manifest::parse(&text, Path::new("plugin.toml")).expect("manifest")
    }

    #[test]
    fn imports_are_the_contract_and_what_was_asked_for() {
        let check = |kind: &str, capabilities: &str, import: &str, expect: Option<&str>| {
            let found = check_imports(&[import.to_owned()], &manifest(kind, capabilities)).err();
            match (found, expect) {
                (None, None) => {}
                (Some(error), Some(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part) && text.contains(import), "{text}");
                }
                (found, expect) => panic!("{kind} {import}: {found:?}, expected {expect:?}"),
            }
        };
        check("router", "", "mortise:core/kv@0.1.0", None);
        check("router", "", "mortise:core/env@0.1.0", None);
        check("scorer", "", "mortise:core/env@0.1.0", Some("no clock"));
        check("router", "\"corpus\"", "mortise:cap/corpus@0.1.0", None);
        check("router", "", "mortise:cap/corpus@0.1.0", Some("does not ask"));
        check("router", "\"tokenizer\"", "mortise:cap/corpus@0.1.0", Some("does not ask"));
        check("agent", "", "wasi:io/streams@0.2.0", Some("no WASI"));
        check("agent", "", "mortise:corex/kv@0.1.0", Some("not part"));
        check("agent", "", "env", Some("not part"));
    }

    #[test]
    fn exports_are_those_of_the_kind() {
        let check = |exports: &[&str], expect: Option<&str>| {
            let exports: Vec<String> = exports.iter().map(|name| (*name).to_owned()).collect();
            let found = check_exports(&exports, &manifest("router", "")).err();
            let text = found.map(|error| error.to_string());
            assert_eq!(text.is_some(), expect.is_some(), "{text:?}");
            assert!(text.unwrap_or_default().contains(expect.unwrap_or_default()));
        };
        let lifecycle = "mortise:hooks/lifecycle@0.1.0";
        check(&[lifecycle, "mortise:hooks/router@0.1.0"], None);
        check(&[lifecycle], Some("mortise:hooks/router"));
        check(&[lifecycle, "mortise:hooks/agent@0.1.0"], Some("which a router must"));
        check(&["mortise:hooks/router@0.1.0"], Some("mortise:hooks/lifecycle"));
    }

    #[test]
    fn a_module_that_is_none_is_refused_by_name() {
        for module in [&b""[..], b"\0asm\x01\0\0\0", b"not wasm", b"\0asm\x01\0\0\0\xff\xff\xff"] {
            let error = encode(module, &manifest("router", "")).err().expect("refused").to_string();
            assert!(error.starts_with("plugin p"), "{error}");
        }
    }
}
