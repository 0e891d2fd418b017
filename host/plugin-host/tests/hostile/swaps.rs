//! Swaps under way: who sees which version, what is kept and what is dropped.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use plugin_host::{
    Capabilities, HostConfig, Plugin, PluginKind, PluginPolicy, PluginState, StreamAction,
    SwapError,
};

use crate::guests::{Guest, TEXT, action, result};
use crate::harness::{Harness, config, info, only};

/// A postprocessor that puts its version in the place of text.
fn signing(version: &str) -> Guest {
    let len = version.len() as u32;
    Guest::new(PluginKind::Postprocessor)
        .named("signing")
        .version(version)
        .text(version)
        .hook("push", action(2, TEXT, len))
        .hook("finish", result(&[0, TEXT, len]))
}

fn states(harness: &Harness) -> Vec<(String, PluginState)> {
    let mut states: Vec<_> =
        harness.host.list().into_iter().map(|plugin| (plugin.version, plugin.state)).collect();
    states.sort_by(|a, b| a.0.cmp(&b.0));
    states
}

fn check_states(harness: &Harness, expect: &[(&str, PluginState)]) {
    let expect: Vec<_> = expect.iter().map(|(v, state)| ((*v).to_owned(), *state)).collect();
    assert_eq!(states(harness), expect);
}

fn signature(plugin: &Arc<Plugin>) -> String {
    let mut stream = plugin.open_stream(&info()).expect("opens");
    match stream.push("x").expect("pushes") {
        StreamAction::Replace(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pinned_chain_keeps_its_version_and_the_last_pin_drops_it() {
    use PluginState::{Active, Draining, Previous};
    let harness = Harness::new();
    let first = Arc::downgrade(&harness.activate(&signing("0.0.1")));
    let pinned = harness.host.chain();
    let mut stream =
        only(&pinned, PluginKind::Postprocessor, "signing").open_stream(&info()).expect("opens");
    harness.activate(&signing("0.0.2"));
    check_states(&harness, &[("0.0.1", Previous), ("0.0.2", Active)]);
    harness.activate(&signing("0.0.3"));
    check_states(&harness, &[("0.0.1", Draining), ("0.0.2", Previous), ("0.0.3", Active)]);
    // The request that began with it goes on with it, in new streams too.
    assert_eq!(stream.push("x"), Ok(StreamAction::Replace("0.0.1".into())));
    assert_eq!(signature(&pinned.postprocessors()[0]), "0.0.1");
    assert_eq!(signature(&harness.host.chain().postprocessors()[0]), "0.0.3");
    drop(pinned);
    assert!(first.upgrade().is_some(), "the stream still needs it");
    assert_eq!(stream.finish("stop"), Ok("0.0.1".into()));
    drop(stream);
    assert!(first.upgrade().is_none(), "its last request has ended");
    check_states(&harness, &[("0.0.2", Previous), ("0.0.3", Active)]);
}

#[test]
fn rollback_and_deactivation_keep_what_they_promise() {
    use PluginState::{Active, Installed, Previous};
    let harness = Harness::new();
    let host = &harness.host;
    let unknown = SwapError::UnknownPlugin { name: "signing".into() };
    assert_eq!(host.activate("signing", None), Err(unknown));
    harness.activate(&signing("0.0.1"));
    let none = SwapError::NoPrevious { name: "signing".into() };
    assert_eq!(host.rollback("signing"), Err(none));
    harness.activate(&signing("0.0.2"));
    assert_eq!(host.rollback("signing").expect("there is one").version, "0.0.1");
    check_states(&harness, &[("0.0.1", Active), ("0.0.2", Previous)]);
    assert_eq!(signature(&host.chain().postprocessors()[0]), "0.0.1");
    host.rollback("signing").expect("and back");
    check_states(&harness, &[("0.0.1", Previous), ("0.0.2", Active)]);
    // Off: the one that was active can be had again.
    host.deactivate("signing").expect("it is active");
    assert!(host.chain().postprocessors().is_empty());
    check_states(&harness, &[("0.0.2", Previous)]);
    let not_active = SwapError::NotActive { name: "signing".into() };
    assert_eq!(host.deactivate("signing"), Err(not_active));
    host.rollback("signing").expect("it was kept");
    check_states(&harness, &[("0.0.2", Active)]);
    harness.install(&signing("0.0.3")).expect("good");
    check_states(&harness, &[("0.0.2", Active), ("0.0.3", Installed)]);
    let error = host.activate("signing", Some("0.0.9")).expect_err("no such version");
    assert!(error.to_string().contains("installed: 0.0.2, 0.0.3"), "{error}");
    // Without a version: the one installed last. Twice is once.
    host.activate("signing", None).expect("it is there");
    host.activate("signing", Some("0.0.3")).expect("it is active");
    check_states(&harness, &[("0.0.2", Previous), ("0.0.3", Active)]);
}

#[test]
fn a_bad_version_leaves_the_old_one_serving() {
    let harness = Harness::new();
    harness.activate(&signing("0.0.1"));
    let bad = [
        signing("0.0.2").init("(unreachable)"),
        signing("0.0.3").says("signing", "9.9.9"),
        signing("0.0.4").without_export("postprocessor"),
    ];
    for guest in bad {
        harness.install(&guest).expect_err("refused");
        harness.host.activate("signing", Some(&guest.version)).expect_err("not installed");
        assert_eq!(signature(&harness.host.chain().postprocessors()[0]), "0.0.1");
    }
    check_states(&harness, &[("0.0.1", PluginState::Active)]);
}

#[test]
fn order_is_the_operators_and_there_is_one_router() {
    let policy = |order| PluginPolicy { order, ..PluginPolicy::default() };
    let policies = [("b".to_owned(), policy(1)), ("a".to_owned(), policy(2))].into();
    let harness = Harness::with(HostConfig { policies, ..config() }, Capabilities::default());
    for name in ["z", "a", "b", "y"] {
        harness.activate(&Guest::new(PluginKind::Preprocessor).named(name));
    }
    let chain = harness.host.chain();
    let names: Vec<_> = chain.preprocessors().iter().map(|plugin| plugin.name()).collect();
    assert_eq!(names, ["b", "a", "y", "z"]);
    for kind in [PluginKind::Router, PluginKind::Scorer] {
        let (one, other) = (format!("one-{kind}"), format!("other-{kind}"));
        harness.activate(&Guest::new(kind).named(&one));
        harness.install(&Guest::new(kind).named(&other)).expect("good");
        let taken = SwapError::PlaceTaken { name: other.clone(), kind, active: one.clone() };
        assert_eq!(harness.host.activate(&other, None), Err(taken));
        harness.host.deactivate(&one).expect("active");
        harness.host.activate(&other, None).expect("free now");
        let taken = SwapError::PlaceTaken { name: one.clone(), kind, active: other };
        assert_eq!(harness.host.rollback(&one), Err(taken));
    }
}

#[test]
fn twenty_swaps_under_load_fail_nobody_and_mix_nothing() {
    const THREADS: usize = 8;
    let harness = Harness::new();
    let mut versions: Vec<Weak<Plugin>> =
        vec![Arc::downgrade(&harness.activate(&signing("0.0.0")))];
    let (stop, requests) = (AtomicBool::new(false), AtomicU32::new(0));
    let request = || {
        let chain = harness.host.chain();
        let plugin = &chain.postprocessors()[0];
        let mut stream = plugin.open_stream(&info()).expect("opens");
        for _ in 0..5 {
            let action = stream.push("x").expect("pushes");
            assert_eq!(action, StreamAction::Replace(plugin.version().to_owned()));
            std::thread::yield_now();
        }
        assert_eq!(stream.finish("stop").expect("ends"), plugin.version());
        assert_eq!(signature(&chain.postprocessors()[0]), plugin.version());
        requests.fetch_add(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    request();
                }
            });
        }
        for swap in 1..=20 {
            let before = requests.load(Ordering::Relaxed);
            versions.push(Arc::downgrade(&harness.activate(&signing(&format!("0.0.{swap}")))));
            // Some requests must run on every version, or nothing is shown.
            while requests.load(Ordering::Relaxed) < before + 2 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let alive: Vec<_> = versions.iter().map(|version| version.upgrade().is_some()).collect();
    assert_eq!(alive.iter().filter(|alive| **alive).count(), 2, "active and previous: {alive:?}");
    assert!(alive[19] && alive[20]);
    let text = harness.metrics();
    let line = "mortise_plugin_acts_total{plugin=\"signing\",act=\"activate\"} 21";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("mortise_plugin_faults_total{"), "{text}");
}
