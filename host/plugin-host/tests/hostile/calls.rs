//! Single calls that go wrong: time, memory, stack, output, rules.

use plugin_host::{
    Candidate, Evidence, FaultKind, PluginKind, PreprocessOutcome, Reject, RouteDecision,
    SHARES_TOTAL, SamplingView, Share,
};
use request::{Message, Role};

use crate::guests::{FOREVER, Guest, RESULT, TEXT, action, error, result};
use crate::harness::{Harness, fault, info, named};

const SYNC: [PluginKind; 4] =
    [PluginKind::Router, PluginKind::Preprocessor, PluginKind::Postprocessor, PluginKind::Scorer];

/// The first hook of a kind.
fn first_hook(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Router => "route",
        PluginKind::Preprocessor => "process",
        PluginKind::Postprocessor => "open",
        PluginKind::Scorer => "score",
        PluginKind::Agent => "run",
    }
}

fn messages() -> Vec<Message> {
    vec![Message::new(Role::System, "Be brief."), Message::new(Role::User, "Hello, é!")]
}

fn candidates() -> Vec<Candidate> {
    let candidate = |model: &str| Candidate { model: model.to_owned(), is_adapter: true };
    vec![candidate("base"), candidate("law")]
}

fn evidence() -> Evidence {
    Evidence { corpus_tokens: 100, output_tokens: 10, owners: 3, spans: Vec::new() }
}

/// Calls the first hook of the guest on a host of its own.
fn call(guest: &Guest) -> Result<(), FaultKind> {
    call_on(&Harness::new(), guest)
}

fn call_on(harness: &Harness, guest: &Guest) -> Result<(), FaultKind> {
    let plugin = harness.activate(guest);
    let (info, messages) = (info(), messages());
    let outcome = match guest.kind {
        PluginKind::Router => plugin.route(&info, &messages, &candidates()).map(drop),
        PluginKind::Preprocessor => {
            plugin.preprocess(&info, &messages, &SamplingView::default()).map(drop)
        }
        PluginKind::Postprocessor => plugin.open_stream(&info).map(drop),
        PluginKind::Scorer => plugin.score(&info, &evidence()).map(drop),
        PluginKind::Agent => unreachable!("agents have tests of their own"),
    };
    named(outcome, guest)
}

#[test]
fn guests_that_do_nothing_are_fine() {
    let harness = Harness::new();
    for kind in SYNC {
        assert_eq!(call_on(&harness, &Guest::new(kind)), Ok(()), "{kind}");
    }
}

#[test]
fn endless_loops_end_in_every_hook() {
    let harness = Harness::new();
    for kind in SYNC {
        let hook = first_hook(kind);
        let kind = call_on(&harness, &Guest::new(kind).hook(hook, FOREVER));
        assert_eq!(kind, Err(FaultKind::DeadlineExceeded { hook, limit_ms: 50 }));
    }
    let text = harness.metrics();
    let line = "mortise_plugin_faults_total{plugin=\"test-router\",kind=\"deadline_exceeded\"} 1";
    assert!(text.contains(line), "{text}");
}

#[test]
fn memory_ends_at_its_limit() {
    // 1 MiB is 16 pages. A guest that starts with one may add 15, and not 16.
    let grow = |pages: u32| {
        format!(
            "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then (unreachable)))
             (i32.const {RESULT})"
        )
    };
    assert_eq!(call(&Guest::new(PluginKind::Router).hook("route", grow(15))), Ok(()));
    let kind = call(&Guest::new(PluginKind::Router).hook("route", grow(16)));
    let limit = 1 << 20;
    let unit = "bytes of memory";
    assert_eq!(kind, Err(FaultKind::MemoryLimit { hook: "route", limit, unit }));
    // One that does not care what it is told runs into its deadline.
    let careless = "(loop (drop (memory.grow (i32.const 1))) (br 0)) (unreachable)";
    let kind = call(&Guest::new(PluginKind::Router).hook("route", careless));
    assert_eq!(kind, Err(FaultKind::DeadlineExceeded { hook: "route", limit_ms: 50 }));
}

#[test]
fn tables_end_at_their_limit() {
    let grow = |elements: u32| {
        Guest::new(PluginKind::Scorer).module("(table $t 0 funcref)").hook(
            "score",
            format!(
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const {elements}))
                             (i32.const -1)) (then (unreachable)))
                 (i32.const {RESULT})"
            ),
        )
    };
    assert_eq!(call(&grow(1_000)), Ok(()));
    let expect = FaultKind::MemoryLimit { hook: "score", limit: 1_000, unit: "table elements" };
    assert_eq!(call(&grow(1_001)), Err(expect));
}

#[test]
fn traps_and_deep_recursion_say_what_and_where() {
    let guest = Guest::new(PluginKind::Router).hook("route", "(unreachable)");
    let Err(FaultKind::Trapped { hook: "route", reason }) = call(&guest) else {
        panic!("not a trap");
    };
    assert!(reason.contains("unreachable"), "{reason}");
    let guest = Guest::new(PluginKind::Router)
        .module(
            "(func $deep (param i32) (result i32) (call $deep (local.get 0)) (drop) \
                 (call $deep (local.get 0)))",
        )
        .hook("route", "(call $deep (i32.const 0))");
    let Err(FaultKind::Trapped { hook: "route", reason }) = call(&guest) else {
        panic!("not a trap");
    };
    assert!(reason.contains("call stack exhausted, in deep"), "{reason}");
}

#[test]
fn lying_lengths_and_bad_bytes_are_refused() {
    let route_to = |at: u32, len: u32| {
        let body = result(&[0, 1, at, len]);
        call(&Guest::new(PluginKind::Router).text("law\u{0}").hook("route", body))
    };
    assert_eq!(route_to(TEXT, 3), Ok(()));
    let beyond = [(65_535, 2), (65_536, 1), (u32::MAX, 1), (TEXT, 60 << 10), (u32::MAX, 100)];
    for (at, len) in beyond {
        let kind = route_to(at, len).expect_err("beyond the memory");
        assert!(matches!(kind, FaultKind::Broken { .. }), "{at} {len}: {kind:?}");
        assert!(kind.to_string().contains("out of bounds"), "{kind}");
    }
    for len in [u32::MAX, u32::MAX - 1, 1 << 31] {
        let kind = route_to(TEXT, len).expect_err("beyond any memory");
        let contained = matches!(
            kind,
            FaultKind::Broken { .. } | FaultKind::OutputTooLarge { .. } | FaultKind::Trapped { .. }
        );
        assert!(contained, "{kind:?}");
    }
    let bad_utf8 = Guest::new(PluginKind::Router)
        .module(format!("(data (i32.const {TEXT}) \"\\ff\\fe\")"))
        .hook("route", result(&[0, 1, TEXT, 2]));
    assert!(matches!(call(&bad_utf8), Err(FaultKind::Broken { .. })));
    let bad_case = Guest::new(PluginKind::Router).hook("route", result(&[0, 7]));
    let kind = call(&bad_case).expect_err("no such case");
    assert!(matches!(kind, FaultKind::Broken { .. } | FaultKind::Trapped { .. }), "{kind:?}");
    let misaligned = Guest::new(PluginKind::Router).hook("route", "(i32.const 4097)");
    let kind = call(&misaligned).expect_err("not aligned");
    assert!(matches!(kind, FaultKind::Broken { .. } | FaultKind::Trapped { .. }), "{kind:?}");
    let nowhere = Guest::new(PluginKind::Router).hook("route", "(i32.const -4)");
    let kind = call(&nowhere).expect_err("no memory there");
    assert!(matches!(kind, FaultKind::Broken { .. } | FaultKind::Trapped { .. }), "{kind:?}");
}

#[test]
fn outputs_end_at_their_limit() {
    let finish = |len: u32| {
        let harness = Harness::new();
        let guest =
            Guest::new(PluginKind::Postprocessor).memory("3").hook("push", action(2, 0, len));
        let plugin = harness.activate(&guest);
        let mut stream = plugin.open_stream(&info()).expect("opens");
        let pushed = stream.push("x");
        named(pushed, &guest).map(drop)
    };
    assert_eq!(finish(64 << 10), Ok(()));
    let limit_bytes = 64 << 10;
    let expect = FaultKind::OutputTooLarge { hook: "push", limit_bytes };
    assert_eq!(finish((64 << 10) + 1), Err(expect));
}

#[test]
fn errors_of_the_guest_are_reported_and_cut() {
    for (kind, shift) in [(PluginKind::Router, 1), (PluginKind::Preprocessor, 2)] {
        let guest = Guest::new(kind).text("bad-day").hook(first_hook(kind), error(7, shift));
        let hook = first_hook(kind);
        let (code, message) = ("bad-day".into(), "bad-day".into());
        assert_eq!(call(&guest), Err(FaultKind::Error { hook, code, message }));
    }
    let long = "é".repeat(2_000);
    let guest = Guest::new(PluginKind::Router).text(&long).hook("route", error(4_000, 1));
    let Err(FaultKind::Error { code, message, .. }) = call(&guest) else {
        panic!("not its error");
    };
    assert_eq!((code.len(), message.len()), (64, 1024));
}

#[test]
fn routers_choose_candidates_or_nothing() {
    let harness = Harness::new();
    let route = |version: &str, body: String| {
        let guest = Guest::new(PluginKind::Router).text("lawx").version(version);
        let guest = guest.hook("route", body);
        let plugin = harness.activate(&guest);
        let decision = plugin.route(&info(), &messages(), &candidates());
        named(decision, &guest)
    };
    assert_eq!(route("0.0.1", result(&[0, 1, TEXT, 3])), Ok(RouteDecision::To("law".into())));
    let kind = route("0.0.2", result(&[0, 1, TEXT, 4])).expect_err("not a candidate");
    assert!(kind.to_string().contains("\"lawx\", which is not a candidate"), "{kind}");
    let reject = |status: u32| result(&[0, 2, status, TEXT, 3, TEXT, 3, 1, 500]);
    let expect = Reject {
        status: 429,
        code: "law".into(),
        message: "law".into(),
        retry_after_ms: Some(500),
    };
    assert_eq!(route("0.0.3", reject(429)), Ok(RouteDecision::Reject(expect)));
    let kind = route("0.0.4", reject(200)).expect_err("not a rejection");
    assert!(kind.to_string().contains("status 200"), "{kind}");
}

#[test]
fn preprocessors_leave_something_to_answer() {
    let harness = Harness::new();
    let process = |version: &str, body: String| {
        let guest = Guest::new(PluginKind::Preprocessor).version(version).hook("process", body);
        let plugin = harness.activate(&guest);
        let outcome = plugin.preprocess(&info(), &messages(), &SamplingView::default());
        named(outcome, &guest)
    };
    // The outcome begins at the third word, its payload at the fifth.
    assert_eq!(process("0.0.1", result(&[0, 0, 0, 0])), Ok(PreprocessOutcome::Unchanged));
    let kind = process("0.0.2", result(&[0, 0, 1, 0, 0, 0])).expect_err("no message");
    assert!(kind.to_string().contains("leaves no message"), "{kind}");
    // One message of the zeros at 32768: role system, no name, no parts.
    let one = process("0.0.3", result(&[0, 0, 1, 0, 32_768, 1]));
    let messages = vec![Message::new(Role::System, "")];
    assert_eq!(one, Ok(PreprocessOutcome::Change { messages, sampling: None }));
    // A list of more messages than a result may carry.
    let kind = process("0.0.4", result(&[0, 0, 1, 0, 32_768, u32::MAX / 64])).expect_err("lies");
    let contained = matches!(kind, FaultKind::Broken { .. } | FaultKind::OutputTooLarge { .. });
    assert!(contained, "{kind:?}");
}

#[test]
fn scorers_cannot_mint_shares() {
    let harness = Harness::new();
    let score = |version: &str, shares: &[(u32, u32)]| {
        let mut words = vec![0, RESULT + 12, shares.len() as u32];
        words.extend(shares.iter().flat_map(|&(owner, parts)| [owner, parts]));
        let guest = Guest::new(PluginKind::Scorer).version(version).hook("score", result(&words));
        let plugin = harness.activate(&guest);
        let outcome = plugin.score(&info(), &evidence());
        named(outcome, &guest)
    };
    assert_eq!(score("0.0.1", &[]), Ok(vec![]));
    let half = SHARES_TOTAL / 2;
    let expect = vec![Share { owner: 0, parts: half }, Share { owner: 2, parts: half }];
    assert_eq!(score("0.0.2", &[(0, half), (2, half)]), Ok(expect));
    let lies = [
        ("0.0.3", vec![(0, half), (1, half - 1)], "sum to 999999999"),
        ("0.0.4", vec![(0, SHARES_TOTAL), (1, 1)], "sum to 1000000001"),
        ("0.0.5", vec![(3, SHARES_TOTAL)], "owner 3"),
        ("0.0.6", vec![(1, half), (1, half)], "twice"),
    ];
    for (version, shares, part) in lies {
        let kind = score(version, &shares).expect_err("a lie");
        assert!(kind.to_string().contains(part), "{kind}");
    }
}

#[test]
fn a_plugin_is_not_called_as_another_kind() {
    let harness = Harness::new();
    let guest = Guest::new(PluginKind::Scorer);
    let plugin = harness.activate(&guest);
    let kind = fault(plugin.route(&info(), &[], &[]), &guest);
    assert!(kind.to_string().contains("it is a scorer, not a router"), "{kind}");
}

#[test]
fn two_thousand_faults_leak_no_slot() {
    let mut config = crate::harness::config();
    (config.instances_max, config.core_instances_max) = (2, 8);
    let harness = Harness::with(config, Default::default());
    let trap = Guest::new(PluginKind::Router).hook("route", "(unreachable)");
    let trap_plugin = harness.activate(&trap);
    let lie = Guest::new(PluginKind::Postprocessor).hook("push", action(2, TEXT, u32::MAX));
    let lie_plugin = harness.activate(&lie);
    for _ in 0..1_000 {
        let kind = fault(trap_plugin.route(&info(), &[], &[]), &trap);
        assert!(matches!(kind, FaultKind::Trapped { .. }), "{kind:?}");
        let mut stream = lie_plugin.open_stream(&info()).expect("a slot is free");
        fault(stream.push("x"), &lie);
    }
    assert_eq!(harness.host.list().iter().map(|plugin| plugin.in_flight).sum::<u32>(), 0);
    assert_eq!(harness.host.list()[1].faults, 1_000);
}

#[test]
fn a_full_pool_is_said_to_be_full() {
    let mut config = crate::harness::config();
    (config.instances_max, config.core_instances_max) = (2, 8);
    let harness = Harness::with(config, Default::default());
    let guest = Guest::new(PluginKind::Postprocessor);
    let plugin = harness.activate(&guest);
    let streams = [plugin.open_stream(&info()), plugin.open_stream(&info())];
    let kind = fault(plugin.open_stream(&info()), &guest);
    assert!(matches!(kind, FaultKind::Exhausted { .. }), "{kind:?}");
    drop(streams);
    plugin.open_stream(&info()).expect("free again");
}
