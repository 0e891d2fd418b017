//! Builds the components. Their cargo runs in a target directory of its own, shared with
//! `make plugins`, so it never waits for the cargo that runs this.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plugin_build::{Builder, BuiltPlugin, Toolchain};

/// What the guests of the workspace are built as.
const VERSION: &str = "1.0.0";
/// Other versions, each of guests whose names contain the word.
const OTHER_VERSIONS: &[(&str, &str)] = &[("2.0.0", ""), ("9.0.0", "preprocessor")];

fn main() {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&here).join("../..").canonicalize().expect("root");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for path in ["plugins", "sdk", "wit", "tests/guests", "tests/artifacts/build.rs", "Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let plugins = crates_of(&root.join("plugins"));
    let guests = crates_of(&root.join("tests/guests"));
    let toolchain = Toolchain::detect(&root).unwrap_or_else(|error| panic!("{error}"));
    let builder = Builder::new(toolchain, target_dir(&out).join("plugin-build"));
    let build = |crates: &[PathBuf], to: &Path| {
        builder.build(crates, to).unwrap_or_else(|error| panic!("{error}"))
    };
    let plugins = build(&plugins, &out.join("plugins"));
    let mut built = build(&guests, &out.join("guests").join(VERSION));
    for (version, word) in OTHER_VERSIONS {
        let sources = out.join("guest-sources").join(version);
        let chosen = guests.iter().filter(|guest| name_of(guest).contains(word));
        let copies = copy_as(version, chosen, &sources, &root);
        built.extend(build(&copies, &out.join("guests").join(version)));
    }
    std::fs::write(out.join("names.rs"), names(&plugins, &built)).expect("names are written");
}

/// Folders below `dir` that are crates, in order of their names.
fn crates_of(dir: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut crates: Vec<PathBuf> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    crates.sort();
    crates
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("crate folders have UTF-8 names")
}

/// The outer target directory, which cargo tags; without a tag, the build's own folder.
fn target_dir(out: &Path) -> PathBuf {
    let tagged = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    tagged.unwrap_or(out).to_owned()
}

/// Copies guests into a workspace of their own, as another version, and gives the copies.
fn copy_as<'a>(
    version: &str,
    guests: impl Iterator<Item = &'a PathBuf>,
    to: &Path,
    root: &Path,
) -> Vec<PathBuf> {
    let write = |path: &Path, text: &str| {
        // An untouched file keeps its date, and cargo its work.
        if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
            return;
        }
        std::fs::create_dir_all(path.parent().expect("below `to`")).expect("folder");
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (old, new) = (format!("version = \"{VERSION}\""), format!("version = \"{version}\""));
    let mut copies = Vec::new();
    for guest in guests {
        // Cargo names a cdylib without a hash: under one name the versions, which share a target
        // directory, would take each other's place, and a version that is fresh would be copied as
        // another.
        let suffix = version.replace('.', "_");
        let library = format!("[lib]\nname = \"{}_{suffix}\"\n", name_of(guest).replace('-', "_"));
        let copy = to.join(name_of(guest));
        for file in ["Cargo.toml", "plugin.toml"] {
            let text = read(guest.join(file));
            assert!(text.contains(&old), "{} of {} has no {old}", file, guest.display());
            write(&copy.join(file), &text.replace(&old, &new).replace("[lib]\n", &library));
        }
        write(&copy.join("src/lib.rs"), &read(guest.join("src/lib.rs")));
        copies.push(copy);
    }
    let members: Vec<&str> = copies.iter().map(|copy| name_of(copy)).collect();
    let sdk = root.join("sdk");
    write(
        &to.join("Cargo.toml"),
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n\
             [workspace.package]\nedition = \"2024\"\nrust-version = \"1.95\"\n\
             license = \"Apache-2.0\"\npublish = false\n\n\
             [workspace.dependencies]\nmortise-sdk = {{ path = {sdk:?} }}\n\n\
             [workspace.lints]\n"
        ),
    );
    // The same versions of everything. Cargo drops from its copy what these crates do not need, so
    // a second copy tells whether the original has changed.
    let lock = read(root.join("Cargo.lock"));
    if std::fs::read_to_string(to.join("root.lock")).is_ok_and(|before| before == lock) {
        return copies;
    }
    write(&to.join("Cargo.lock"), &lock);
    write(&to.join("root.lock"), &lock);
    copies
}

/// The lists that `src/lib.rs` includes.
fn names(plugins: &[BuiltPlugin], guests: &[BuiltPlugin]) -> String {
    let plugin_names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let guest_names: Vec<(&str, String)> =
        guests.iter().map(|guest| (guest.name.as_str(), guest.version.to_string())).collect();
    let imports: Vec<(&str, &[String])> =
        plugins.iter().map(|plugin| (plugin.name.as_str(), &*plugin.imports)).collect();
    let mut text = String::new();
    let mut list = |comment: &str, name: &str, kind: &str, value: &dyn std::fmt::Debug| {
        let value = format!("{value:?}").replace(", [", ", &[");
        writeln!(text, "/// {comment}\npub const {name}: &[{kind}] = &{value};").expect("writes");
    };
    list("The shipped plugins.", "PLUGINS", "&str", &plugin_names);
    list("The guests, each with a version.", "GUESTS", "(&str, &str)", &guest_names);
    list("What each shipped plugin imports.", "IMPORTS", "(&str, &[&str])", &imports);
    text
}
