//! The environment of an inner cargo. When a build script runs us, the outer cargo's variables would
//! steer the inner one to the wrong compiler, flags and target directory.

use std::ffi::OsStr;
use std::process::Command;

/// Variables that cargo, clippy or rustup set for what they run, or that choose a compiler.
const CLEARED: &[&str] = &[
    "CARGO",
    "CLIPPY_ARGS",
    "DEBUG",
    "HOST",
    // Names the outer toolchain's libraries, which another compiler must not load.
    "LD_LIBRARY_PATH",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
    "TARGET",
];

/// Of the `CARGO_` variables, those that say how the user reaches registries, where the caches are,
/// what the terminal can do, and which jobserver keeps all builds within one number of jobs.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Whether the inner cargo must not see the variable.
fn is_cleared(name: &str) -> bool {
    let kept =
        || KEPT.iter().any(|kept| name == *kept || kept.ends_with('_') && name.starts_with(kept));
    CLEARED.contains(&name)
        || name.starts_with("__CARGO")
        || name.starts_with("DEP_")
        || name.starts_with("CARGO_") && !kept()
}

/// Removes from `command` what an outer cargo has set.
pub(crate) fn clear(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_cleared) {
            command.env_remove(&name);
        }
    }
}

/// Cargo's home, as cargo finds it.
pub(crate) fn cargo_home() -> Option<std::path::PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| value != OsStr::new(""));
    let home = || set("HOME").map(|home| std::path::PathBuf::from(home).join(".cargo"));
    set("CARGO_HOME").map(Into::into).or_else(home)
}

#[cfg(test)]
mod tests {
    use super::is_cleared;

    #[test]
    fn outer_cargo_is_forgotten_and_the_user_is_not() {
        let check = |name: &str, expect: bool| assert_eq!(is_cleared(name), expect, "{name}");
        for name in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "DEP_Z_ROOT",
            "OUT_DIR",
            "__CARGO_TEST_ROOT",
        ] {
            check(name, true);
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "CARGO_REGISTRIES_OURS_INDEX",
            "CARGO_TERM_COLOR",
            "CARGO_MAKEFLAGS",
            "RUSTUP_HOME",
            "TARGETS",
        ] {
            check(name, false);
        }
        check("CARGO_HOMELY", true);
    }
}
