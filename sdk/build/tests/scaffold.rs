//! What `scaffold` writes passes its own tests and builds to components, for every kind, with the real
//! cargo. The target directory stays from run to run, so that only the first takes long.

use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_build::{Builder, Kind, Toolchain, scaffold};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("root")
}

/// A crate of each kind in `dir`, with the versions that this workspace uses.
fn crates(dir: &Path) -> Vec<PathBuf> {
    std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).expect("lock");
    std::fs::write(
        dir.join("Cargo.toml"),
        "[workspace]\nresolver = \"3\"\nmembers = [\"new-*\"]\n",
    )
    .expect("workspace");
    let crate_of = |kind: Kind| {
        let name = format!("new-{kind}");
        let path = dir.join(&name);
        scaffold(kind, &name, &path, Some(&root().join("sdk"))).expect("scaffolds");
        path
    };
    Kind::ALL.into_iter().map(crate_of).collect()
}

/// Cargo without what the outer one has set.
fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"].contains(&&*text);
        let outer = text.starts_with("CARGO") || text.starts_with("RUSTC") || text == "RUSTFLAGS";
        if outer && !kept {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn new_crates_pass_their_tests() {
    let dir = tempfile::tempdir().expect("temporary folder");
    crates(dir.path());
    let output = cargo()
        .args(["test", "--offline", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold-tests"))
        .current_dir(dir.path())
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    let (out, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{errors}");
    for kind in Kind::ALL {
        assert!(errors.contains(&format!("new_{kind}-")), "{kind} was not tested:\n{errors}");
    }
    let passed = out.lines().filter(|line| line.starts_with("test ") && line.ends_with("ok"));
    assert_eq!(passed.count(), 7, "{out}");
}

#[test]
fn new_crates_are_components() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let crates = crates(dir.path());
    let toolchain = Toolchain::detect(dir.path()).expect("a toolchain");
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold-components");
    let builder = Builder::new(toolchain, target_dir);
    let out = dir.path().join("out");
    let built = builder.build(&crates, &out).expect("builds");
    let kinds: Vec<Kind> = built.iter().map(|plugin| plugin.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
    for plugin in &built {
        let generates = plugin.imports.iter().any(|import| import.contains("cap/generate"));
        assert_eq!(generates, plugin.kind == Kind::Agent, "{:?}", plugin.imports);
        let component = std::fs::read(plugin.dir.join("plugin.wasm")).expect("component");
        assert_eq!(component.len(), plugin.component_bytes);
        assert!(plugin.changed);
    }
    // Nothing changed: nothing is written again.
    let again = builder.build(&crates, &out).expect("builds");
    assert!(again.iter().all(|plugin| !plugin.changed), "{again:?}");
}

#[test]
fn a_crate_on_its_own_is_a_component() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("alone");
    scaffold(Kind::Scorer, "alone", &path, Some(&root().join("sdk"))).expect("scaffolds");
    std::fs::copy(root().join("Cargo.lock"), path.join("Cargo.lock")).expect("lock");
    let toolchain = Toolchain::detect(&path).expect("a toolchain");
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold-components");
    let built = Builder::new(toolchain, target_dir)
        .build(&[path], &dir.path().join("out"))
        .expect("builds");
    assert_eq!((built.len(), built[0].name.as_str()), (1, "alone"));
}
