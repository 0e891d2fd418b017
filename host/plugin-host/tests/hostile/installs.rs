//! What is refused at install, why, and that it leaves everything as it was.

use std::collections::BTreeSet;
use std::path::Path;

use plugin_host::{
    Capabilities, Capability, HostConfig, InstallError, PluginKind, PluginPolicy, PluginState,
};

use crate::guests::{FOREVER, Guest, error};
use crate::harness::{Harness, config, info};
use crate::imports::{corpus, tokenizer};

/// Installs a guest that must be refused with `parts` in the error, over a good one that must stay.
fn refused(harness: &Harness, guest: &Guest, parts: &[&str]) -> InstallError {
    let good = Guest::new(PluginKind::Preprocessor).named("good");
    if harness.host.chain().preprocessors().is_empty() {
        harness.activate(&good);
    }
    let before = harness.host.list();
    let error = harness.install(guest).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains(&format!("{}@{}", guest.name, guest.version)), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text} does not say {part}");
    }
    assert_eq!(harness.host.list(), before);
    let chain = harness.host.chain();
    let plugin = &chain.preprocessors()[0];
    plugin.preprocess(&info(), &[], &Default::default()).expect("the good one still serves");
    error
}

fn with_policy(name: &str, policy: PluginPolicy, capabilities: Capabilities) -> Harness {
    let config = HostConfig { policies: [(name.to_owned(), policy)].into(), ..config() };
    Harness::with(config, capabilities)
}

fn grants(capability: Capability) -> PluginPolicy {
    PluginPolicy { grants: BTreeSet::from([capability]), ..PluginPolicy::default() }
}

fn lend_all() -> Capabilities {
    Capabilities { tokenizer: Some(tokenizer()), corpus: Some(corpus()) }
}

const COUNT: &str = "(import \"mortise:cap/tokenizer@0.1.0\" \"count\" \
                      (func $count (param i32 i32 i32)))";

/// A router that uses the tokenizer, and asks for it if told to.
fn counting(asks: bool) -> Guest {
    let guest = Guest::new(PluginKind::Router)
        .named("counting")
        .import("mortise:cap/tokenizer@0.1.0", COUNT)
        .hook(
            "route",
            "(call $count (i32.const 0) (i32.const 0) (i32.const 4096)) (i32.const 5000)",
        );
    if asks { guest.manifest("capabilities = [\"tokenizer\"]") } else { guest }
}

#[test]
fn what_is_not_granted_is_named() {
    let import = "`mortise:cap/tokenizer@0.1.0`";
    // Asked for and not granted.
    let harness = Harness::with(config(), lend_all());
    refused(&harness, &counting(true), &[import, "operator did not grant", "tokenizer"]);
    // Granted and not asked for: the manifest is what an operator reads before granting.
    let harness = with_policy("counting", grants(Capability::Tokenizer), lend_all());
    refused(&harness, &counting(false), &[import, "manifest does not ask for"]);
    // Granted and asked for, and another one used.
    let harness = with_policy("counting", grants(Capability::Corpus), lend_all());
    refused(&harness, &counting(true), &[import, "operator did not grant"]);
    // Granted, and there is none.
    let none = Capabilities::default();
    let harness = with_policy("counting", grants(Capability::Tokenizer), none);
    refused(&harness, &counting(true), &[import, "this host cannot lend"]);
    // All is well.
    let harness = with_policy("counting", grants(Capability::Tokenizer), lend_all());
    let plugin = harness.activate(&counting(true));
    plugin.route(&info(), &[], &[]).expect("it counts");
    assert_eq!(harness.host.list()[0].granted, BTreeSet::from([Capability::Tokenizer]));
}

#[test]
fn wasi_and_strangers_are_named() {
    let harness = Harness::new();
    let random = "(import \"wasi:random/random@0.2.0\" \"get-random-u64\" \
                  (func $random (result i64)))";
    let wasi = Guest::new(PluginKind::Router)
        .import("wasi:random/random@0.2.0", random)
        .hook("route", "(drop (call $random)) (i32.const 4096)");
    let parts = ["`wasi:random/random@0.2.0`", "no WASI"];
    refused(&harness, &wasi, &parts);
    let put = "(import \"acme:cloud/store@1.0.0\" \"put\" (func $put))";
    let stranger = Guest::new(PluginKind::Router)
        .import("acme:cloud/store@1.0.0", put)
        .hook("route", "(call $put) (i32.const 4096)");
    refused(&harness, &stranger, &["`acme:cloud/store@1.0.0`", "does not know"]);
}

#[test]
fn scorers_get_no_clock_and_hooks_no_model() {
    let wall = "(import \"mortise:core/env@0.1.0\" \"wall-ms\" (func $wall (result i64)))";
    let timed = |kind, hook| {
        Guest::new(kind)
            .import("mortise:core/env@0.1.0", wall)
            .hook(hook, "(drop (call $wall)) (i32.const 4096)")
    };
    let harness = Harness::new();
    let parts = ["`mortise:core/env@0.1.0`", "a scorer does not get"];
    refused(&harness, &timed(PluginKind::Scorer, "score"), &parts);
    harness.install(&timed(PluginKind::Router, "route")).expect("routers have a clock");
    let budget = "(import \"mortise:cap/generate@0.1.0\" \"budget-tokens\" \
                  (func $budget (result i32)))";
    let thinking = Guest::new(PluginKind::Router)
        .named("thinking")
        .import("mortise:cap/generate@0.1.0", budget)
        .hook("route", "(drop (call $budget)) (i32.const 4096)");
    let parts = ["`mortise:cap/generate@0.1.0`", "a router does not get"];
    refused(&harness, &thinking, &parts);
}

#[test]
fn wrong_worlds_are_refused() {
    let harness = Harness::new();
    let guest = Guest::new(PluginKind::Router).without_export("lifecycle");
    refused(&harness, &guest, &["router world", "mortise:hooks/lifecycle@0.1.0"]);
    let guest = Guest::new(PluginKind::Router).without_export("router");
    refused(&harness, &guest, &["router world", "mortise:hooks/router@0.1.0"]);
    // A scorer in the clothes of a router.
    let mut guest = Guest::new(PluginKind::Scorer).named("wolf");
    let dir = guest.write(harness.dir.path());
    guest.kind = PluginKind::Router;
    std::fs::write(dir.join("plugin.toml"), guest.plugin_toml()).expect("manifest");
    let error = harness.host.install(&dir).expect_err("refused");
    assert!(error.to_string().contains("mortise:hooks/router@0.1.0"), "{error}");
    assert!(matches!(error, InstallError::World { .. }), "{error:?}");
}

#[test]
fn functions_of_another_shape_are_refused() {
    let harness = Harness::new();
    let dir = harness.dir.path().join("wit");
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")), &dir);
    let hooks = std::fs::read_to_string(dir.join("hooks.wit")).expect("hooks");
    let other = hooks.replace(
        "score: func(info: request-info, evidence: evidence)\n    -> result<list<share>, error>;",
        "score: func(info: request-info, evidence: evidence)\n    -> result<list<u64>, error>;",
    );
    let other = if other == hooks {
        hooks.replace("-> result<list<share>, error>;", "-> result<list<u64>, error>;")
    } else {
        other
    };
    assert_ne!(other, hooks, "the contract has changed: change this test");
    std::fs::write(dir.join("hooks.wit"), other).expect("hooks");
    let guest = Guest::new(PluginKind::Scorer).wit(&dir);
    let error = refused(&harness, &guest, &["scorer world"]);
    assert!(matches!(error, InstallError::World { .. }), "{error:?}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("directory") {
        let path = entry.expect("entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file");
        }
    }
}

#[test]
fn a_bad_init_is_refused() {
    let harness = Harness::new();
    for kind in [PluginKind::Router, PluginKind::Agent] {
        let guest = || Guest::new(kind);
        refused(&harness, &guest().init("(unreachable)"), &["init", "trapped", "unreachable"]);
        refused(&harness, &guest().init(FOREVER), &["init ran over its deadline of 100 ms"]);
        let sulk = guest().text("sulking").init(error(7, 1));
        refused(&harness, &sulk, &["init failed with sulking: sulking"]);
        let hungry = "(drop (memory.grow (i32.const 100))) (unreachable)";
        refused(&harness, &guest().init(hungry), &["limit of 1048576 bytes of memory"]);
        // Over the limit of its kind, and over that of every kind.
        refused(&harness, &guest().memory("17"), &["limit of 1048576 bytes of memory"]);
        refused(&harness, &guest().memory("33"), &["does not compile", "exceeds the limit"]);
        harness.install(&guest().version("1.0.0").memory("16")).expect("16 pages are allowed");
    }
    let other = Guest::new(PluginKind::Scorer).says("other", "0.1.0");
    refused(&harness, &other, &["says that it is other@0.1.0"]);
    let other = Guest::new(PluginKind::Scorer).says("test-scorer", "0.1.1");
    refused(&harness, &other, &["says that it is test-scorer@0.1.1"]);
    let start =
        Guest::new(PluginKind::Scorer).module(format!("(func $start {FOREVER}) (start $start)"));
    refused(&harness, &start, &["deadline"]);
}

#[test]
fn a_version_keeps_its_content_and_a_name_its_kind() {
    let harness = Harness::new();
    let guest = Guest::new(PluginKind::Router).named("steady");
    let first = harness.install(&guest).expect("good");
    assert_eq!(first.state, PluginState::Installed);
    let again = harness.install(&guest).expect("the same again");
    assert_eq!(again.digest, first.digest);
    assert_eq!(harness.host.list().len(), 1);
    let changed = guest.clone().text("changed");
    let error = refused(&harness, &changed, &["give it another version"]);
    assert!(matches!(error, InstallError::DigestChanged { .. }), "{error:?}");
    harness.install(&changed.version("0.1.1")).expect("another version");
    let error =
        refused(&harness, &Guest::new(PluginKind::Scorer).named("steady"), &["is a router"]);
    assert!(matches!(error, InstallError::KindChanged { .. }), "{error:?}");
}

#[test]
fn numbers_of_plugins_and_versions_end_at_their_limits() {
    let config = HostConfig { plugins_max: 2, versions_max: 2, ..config() };
    let harness = Harness::with(config, Capabilities::default());
    let guest = |name, version| Guest::new(PluginKind::Router).named(name).version(version);
    harness.activate(&guest("a", "0.0.1"));
    harness.install(&guest("a", "0.0.2")).expect("room");
    // One that only waits makes room for the next.
    harness.install(&guest("a", "0.0.3")).expect("room is made");
    let versions = |harness: &Harness| -> Vec<String> {
        harness.host.list().into_iter().map(|plugin| plugin.version).collect()
    };
    assert_eq!(versions(&harness), ["0.0.1", "0.0.3"]);
    harness.host.activate("a", None).expect("installed");
    // The active one and the way back do not.
    let error = harness.install(&guest("a", "0.0.4")).expect_err("full");
    assert!(error.to_string().contains("the limit is 2 versions"), "{error}");
    assert_eq!(versions(&harness), ["0.0.1", "0.0.3"]);
    harness.install(&guest("b", "0.0.1")).expect("room");
    let error = harness.install(&guest("c", "0.0.1")).expect_err("full");
    assert!(error.to_string().contains("the limit is 2 plugins"), "{error}");
}

#[test]
fn files_that_are_no_plugins_are_refused() {
    let config = HostConfig { component_bytes_max: 8_000, ..config() };
    let harness = Harness::with(config, Capabilities::default());
    let guest = Guest::new(PluginKind::Router);
    let dir = guest.write(harness.dir.path());
    let component = dir.join("plugin.wasm");
    let good = std::fs::read(&component).expect("component");
    assert!(good.len() < 8_000, "{}", good.len());
    let check = |bytes: &[u8], part: &str| {
        std::fs::write(&component, bytes).expect("component");
        let error = harness.host.install(&dir).expect_err("refused");
        assert!(error.to_string().contains(part), "{error} does not say {part}");
    };
    check(b"", "does not compile");
    check(b"(component)", "does not compile");
    check(b"\0asm\x01\0\0\0", "does not compile");
    // Cut between two sections it is a component still, and exports nothing. The last sections are
    // names and producers, which nothing needs.
    for cut in (1..good.len() / 2).step_by(3) {
        std::fs::write(&component, &good[..cut]).expect("component");
        let error = harness.host.install(&dir).expect_err("refused");
        let refused = matches!(error, InstallError::Compile { .. } | InstallError::World { .. });
        assert!(refused, "cut at {cut}: {error}");
    }
    let mut padded = good.clone();
    padded.resize(8_001, 0);
    check(&padded, "longer than the limit of 8000 bytes");
    std::fs::remove_file(&component).expect("component");
    let error = harness.host.install(&dir).expect_err("refused");
    assert!(error.to_string().contains("plugin.wasm"), "{error}");
    std::fs::create_dir(&component).expect("directory");
    let error = harness.host.install(&dir).expect_err("refused");
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = harness.host.install(Path::new("/nowhere/at/all")).expect_err("refused");
    assert!(error.to_string().contains("/nowhere/at/all/plugin.toml"), "{error}");
    let long = format!("{}#{}", guest.plugin_toml(), "x".repeat(64 << 10));
    std::fs::write(dir.join("plugin.toml"), long).expect("manifest");
    let error = harness.host.install(&dir).expect_err("refused");
    assert!(error.to_string().contains("longer than the limit of 65536 bytes"), "{error}");
}

#[test]
fn compiled_code_is_kept_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("cache");
    let config = HostConfig { cache_dir: Some(cache.clone()), ..config() };
    let guest = Guest::new(PluginKind::Router);
    for _ in 0..2 {
        let harness = Harness::with(config.clone(), Capabilities::default());
        harness.activate(&guest).route(&info(), &[], &[]).expect("routes");
    }
    fn files(dir: &Path) -> usize {
        let entries = std::fs::read_dir(dir).expect("directory");
        let count = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { 1 };
        entries.map(|entry| count(entry.expect("entry").path())).sum()
    }
    assert!(files(&cache) > 0, "nothing was kept");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("file");
    let config = HostConfig { cache_dir: Some(file.clone()), ..config };
    let error = plugin_host::PluginHost::new(config, Capabilities::default());
    let error = error.expect_err("not a directory").to_string();
    assert!(error.contains(file.to_str().expect("UTF-8")), "{error}");
}
