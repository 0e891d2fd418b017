//! Imports as guests use and abuse them, and the capabilities that tests lend.

use std::collections::BTreeSet;
use std::sync::Arc;

use plugin_host::{
    Capabilities, Capability, CapabilityError, CorpusCapability, CorpusInfo, FaultKind, HostConfig,
    ImportLimits, PluginKind, PluginPolicy, TokenizerCapability,
};

use crate::guests::{Guest, TEXT, error, result};
use crate::harness::{Harness, config, fault, info, named};

/// A token per byte.
struct Bytes;

impl TokenizerCapability for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, CapabilityError> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, ids: &[u32]) -> Result<String, CapabilityError> {
        let byte = |id: &u32| u8::try_from(*id).ok().filter(u8::is_ascii).map(char::from);
        let text: Option<String> = ids.iter().map(byte).collect();
        text.ok_or_else(|| CapabilityError::new("invalid", "no such token"))
    }
}

impl CorpusCapability for Bytes {
    fn list(&self) -> Vec<CorpusInfo> {
        vec![CorpusInfo { adapter: "law".into(), tokens: 10, documents: 2, owners: 1 }]
    }

    fn ngram_counts(
        &self,
        adapters: &[String],
        text: &str,
        n: u32,
    ) -> Result<Vec<Vec<u64>>, CapabilityError> {
        let columns = (text.len() + 1).saturating_sub(n as usize);
        Ok(adapters.iter().map(|_| vec![7; columns]).collect())
    }
}

pub(crate) fn tokenizer() -> Arc<dyn TokenizerCapability> {
    Arc::new(Bytes)
}

pub(crate) fn corpus() -> Arc<dyn CorpusCapability> {
    Arc::new(Bytes)
}

const LOG: &str = "(import \"mortise:core/logging@0.1.0\" \"log\" \
                   (func $log (param i32 i32 i32 i32 i32)))";
const SET: &str = "(import \"mortise:core/kv@0.1.0\" \"set\" \
                   (func $set (param i32 i32 i32 i32 i32 i64 i32)))";
const INCR: &str = "(import \"mortise:core/kv@0.1.0\" \"incr\" \
                    (func $incr (param i32 i32 i64 i32 i64 i32)))";

#[test]
fn a_flood_of_log_lines_is_dropped_and_counted() {
    let limits = ImportLimits { log_lines_max: 10, ..ImportLimits::default() };
    let config = HostConfig { imports: limits, ..config() };
    let harness = Harness::with(config, Capabilities::default());
    let flood = format!(
        "(loop (call $log (i32.const 2) (i32.const {TEXT}) (i32.const 5) (i32.const 0) (i32.const 0))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))
         (i32.const 4096)"
    );
    let guest = Guest::new(PluginKind::Router)
        .import("mortise:core/logging@0.1.0", LOG)
        .text("hello")
        .hook("route", flood);
    let plugin = harness.activate(&guest);
    plugin.route(&info(), &[], &[]).expect("logging is no fault");
    let line = "mortise_plugin_log_lines_dropped_total{plugin=\"test-router\"} 990";
    assert!(harness.metrics().contains(line), "{}", harness.metrics());
    // A line whose length is a lie is a fault.
    let liar = Guest::new(PluginKind::Router)
        .version("0.2.0")
        .import("mortise:core/logging@0.1.0", LOG)
        .hook(
            "route",
            "(call $log (i32.const 2) (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 0))
             (i32.const 4096)",
        );
    let kind = fault(harness.activate(&liar).route(&info(), &[], &[]), &liar);
    let contained = matches!(
        kind,
        FaultKind::Broken { .. } | FaultKind::OutputTooLarge { .. } | FaultKind::Trapped { .. }
    );
    assert!(contained, "{kind:?}");
}

/// A router that stores one value of `len` bytes under the key `k` and hands the store's error on.
fn storing(version: &str, len: u32) -> Guest {
    let body = format!(
        "(call $set (i32.const {TEXT}) (i32.const 1) (i32.const 16384) (i32.const {len})
           (i32.const 0) (i64.const 0) (i32.const 4096))
         (if (i32.load8_u (i32.const 4096)) (then (return (i32.const 4096))))
         (i32.const 5000)"
    );
    Guest::new(PluginKind::Router)
        .version(version)
        .import("mortise:core/kv@0.1.0", SET)
        .text("k")
        .memory("2")
        .hook("route", body)
}

#[test]
fn the_store_ends_at_its_quota() {
    let limits = ImportLimits { kv_bytes_max: 1_000, ..ImportLimits::default() };
    let config = HostConfig { imports: limits, ..config() };
    let harness = Harness::with(config, Capabilities::default());
    let fits = storing("0.0.1", 900);
    harness.activate(&fits).route(&info(), &[], &[]).expect("room");
    let guest = storing("0.0.2", 1_000);
    let kind = fault(harness.activate(&guest).route(&info(), &[], &[]), &guest);
    assert!(matches!(&kind, FaultKind::Error { code, .. } if &**code == "over-budget"), "{kind:?}");
    let guest = storing("0.0.3", 65 << 10);
    let kind = fault(harness.activate(&guest).route(&info(), &[], &[]), &guest);
    assert!(matches!(kind, FaultKind::OutputTooLarge { .. }), "{kind:?}");
}

/// A postprocessor whose `finish` gives as many letters as its counter in the store says.
fn counting(name: &str, version: &str) -> Guest {
    let body = format!(
        "(call $incr (i32.const {TEXT}) (i32.const 1) (i64.const 1) (i32.const 0) (i64.const 0)
           (i32.const 4096))
         (i32.store (i32.const 5004) (i32.const {TEXT}))
         (i32.store (i32.const 5008) (i32.load (i32.const 4104)))
         (i32.const 5000)"
    );
    Guest::new(PluginKind::Postprocessor)
        .named(name)
        .version(version)
        .import("mortise:core/kv@0.1.0", INCR)
        .text("nnnnnnnnnn")
        .hook("finish", body)
}

#[test]
fn the_store_is_a_plugins_own_and_all_its_versions() {
    let harness = Harness::new();
    let count = |name, version| {
        let plugin = harness.activate(&counting(name, version));
        plugin.open_stream(&info()).expect("opens").finish("stop").expect("counts").len()
    };
    assert_eq!(count("one", "0.0.1"), 1);
    assert_eq!(count("one", "0.0.2"), 2);
    assert_eq!(count("other", "0.0.1"), 1);
    assert_eq!(count("one", "0.0.3"), 3);
}

#[test]
fn settings_are_the_manifests_under_the_operators() {
    let get = "(import \"mortise:core/config@0.1.0\" \"get\" (func $get (param i32 i32 i32)))";
    // Gives the setting `mask` as the last text, or traps if there is none.
    let guest = Guest::new(PluginKind::Postprocessor)
        .named("masking")
        .import("mortise:core/config@0.1.0", get)
        .text("mask")
        .manifest("[config]\nmask = \"***\"\nother = 3")
        .hook(
            "finish",
            format!(
                "(call $get (i32.const {TEXT}) (i32.const 4) (i32.const 4096))
                 (if (i32.eqz (i32.load8_u (i32.const 4096))) (then (unreachable)))
                 (i32.store8 (i32.const 4096) (i32.const 0))
                 (i32.const 4096)"
            ),
        );
    let last = |config: HostConfig| {
        let plugin = Harness::with(config, Capabilities::default()).activate(&guest);
        plugin.open_stream(&info()).expect("opens").finish("stop").expect("a setting")
    };
    assert_eq!(last(config()), "***");
    let settings = serde_json::json!({ "mask": "###" });
    let settings = settings.as_object().expect("an object").clone();
    let policy = PluginPolicy { config: settings, ..PluginPolicy::default() };
    let policies = [("masking".to_owned(), policy)].into();
    assert_eq!(last(HostConfig { policies, ..config() }), "###");
}

#[test]
fn counts_of_corpora_are_bounded() {
    let counts = "(import \"mortise:cap/corpus@0.1.0\" \"ngram-counts\" \
                  (func $counts (param i32 i32 i32 i32 i32 i32)))";
    let policy =
        PluginPolicy { grants: BTreeSet::from([Capability::Corpus]), ..Default::default() };
    let config = HostConfig { default_policy: policy, ..config() };
    let capabilities = Capabilities { corpus: Some(corpus()), ..Capabilities::default() };
    let harness = Harness::with(config, capabilities);
    // One corpus named by the text at TEXT; hands an error on.
    let ask = |version: &str, text_len: u32, n: u32| {
        let body = format!(
            "(i32.store (i32.const 5000) (i32.const {TEXT}))
             (i32.store (i32.const 5004) (i32.const 3))
             (call $counts (i32.const 5000) (i32.const 1) (i32.const {TEXT})
               (i32.const {text_len}) (i32.const {n}) (i32.const 4096))
             (if (i32.load8_u (i32.const 4096)) (then (return (i32.const 4096))))
             (i32.const 6000)"
        );
        let guest = Guest::new(PluginKind::Router)
            .version(version)
            .manifest("capabilities = [\"corpus\"]")
            .import("mortise:cap/corpus@0.1.0", counts)
            .text("law")
            .hook("route", body);
        let outcome = harness.activate(&guest).route(&info(), &[], &[]);
        named(outcome, &guest).err()
    };
    assert_eq!(ask("0.0.1", 3, 1), None);
    assert_eq!(ask("0.0.2", 3, 16), None);
    for (version, n) in [("0.0.3", 0), ("0.0.4", 17)] {
        let kind = ask(version, 3, n).expect("an error");
        assert!(matches!(&kind, FaultKind::Error { code, .. } if &**code == "invalid"), "{kind:?}");
    }
}

#[test]
fn rejections_of_the_guest_are_not_faults_of_the_import() {
    let harness = Harness::new();
    let guest = Guest::new(PluginKind::Router).text("no").hook("route", error(2, 1));
    let kind = fault(harness.activate(&guest).route(&info(), &[], &[]), &guest);
    assert!(matches!(kind, FaultKind::Error { .. }), "{kind:?}");
    let guest = guest.version("0.2.0").hook("route", result(&[0]));
    harness.activate(&guest).route(&info(), &[], &[]).expect("passes");
}
