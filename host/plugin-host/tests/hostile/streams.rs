//! Postprocessors: one instance per stream, and what a broken stream does to others: nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use plugin_host::{FaultKind, PluginKind, StreamAction};

use crate::guests::{FOREVER, Guest, TEXT, action};
use crate::harness::{Harness, fault, info};

/// Counts its pushes and does `then` at the third.
fn at_the_third(then: &str) -> Guest {
    Guest::new(PluginKind::Postprocessor).module("(global $pushes (mut i32) (i32.const 0))").hook(
        "push",
        format!(
            "(global.set $pushes (i32.add (global.get $pushes) (i32.const 1)))
                 (if (i32.eq (global.get $pushes) (i32.const 3)) (then {then}))
                 {}",
            action(0, 0, 0)
        ),
    )
}

#[test]
fn a_trap_ends_its_own_stream_alone() {
    let harness = Harness::new();
    let guest = at_the_third("(unreachable)");
    let plugin = harness.activate(&guest);
    let mut first = plugin.open_stream(&info()).expect("opens");
    let mut second = plugin.open_stream(&info()).expect("opens");
    for _ in 0..2 {
        assert_eq!(first.push("x"), Ok(StreamAction::Pass));
    }
    assert_eq!(second.push("x"), Ok(StreamAction::Pass));
    let kind = fault(first.push("x"), &guest);
    assert!(matches!(kind, FaultKind::Trapped { hook: "push", .. }), "{kind:?}");
    // The instance is gone, and says so for ever.
    assert_eq!(fault(first.push("x"), &guest), FaultKind::StreamEnded);
    assert_eq!(fault(first.finish("stop"), &guest), FaultKind::StreamEnded);
    // The other counts for itself.
    assert_eq!(second.push("x"), Ok(StreamAction::Pass));
    assert_eq!(second.finish("stop"), Ok(String::new()));
    assert_eq!(fault(second.finish("stop"), &guest), FaultKind::StreamEnded);
}

#[test]
fn a_loop_in_a_stream_ends_by_the_deadline_of_a_chunk() {
    let harness = Harness::new();
    let guest = at_the_third(FOREVER);
    let plugin = harness.activate(&guest);
    let mut stream = plugin.open_stream(&info()).expect("opens");
    assert_eq!(stream.push("x"), Ok(StreamAction::Pass));
    assert_eq!(stream.push("x"), Ok(StreamAction::Pass));
    let expect = FaultKind::DeadlineExceeded { hook: "push", limit_ms: 20 };
    assert_eq!(fault(stream.push("x"), &guest), expect);
    let guest = Guest::new(PluginKind::Postprocessor).version("0.2.0").hook("finish", FOREVER);
    let plugin = harness.activate(&guest);
    let mut stream = plugin.open_stream(&info()).expect("opens");
    let expect = FaultKind::DeadlineExceeded { hook: "finish", limit_ms: 50 };
    assert_eq!(fault(stream.finish("stop"), &guest), expect);
}

#[test]
fn growth_over_a_stream_ends_at_the_limit() {
    let harness = Harness::new();
    let hoard = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))";
    let guest =
        Guest::new(PluginKind::Postprocessor).hook("push", format!("{hoard}{}", action(1, 0, 0)));
    let plugin = harness.activate(&guest);
    let mut stream = plugin.open_stream(&info()).expect("opens");
    // One page at the start, 16 in all.
    for _ in 0..15 {
        assert_eq!(stream.push("x"), Ok(StreamAction::Hold));
    }
    let kind = fault(stream.push("x"), &guest);
    assert!(matches!(kind, FaultKind::MemoryLimit { hook: "push", .. }), "{kind:?}");
}

#[test]
fn actions_come_through_and_stop_ends_the_stream() {
    let harness = Harness::new();
    let guest = |version: &str, case| {
        let guest = Guest::new(PluginKind::Postprocessor).version(version).text("masked");
        guest.hook("push", action(case, TEXT, 6))
    };
    let first = |version, case| {
        let mut stream = harness.activate(&guest(version, case)).open_stream(&info())?;
        let action = stream.push("text")?;
        Ok::<_, plugin_host::PluginFault>((action, stream.finish("stop").is_ok()))
    };
    assert_eq!(first("0.0.1", 0), Ok((StreamAction::Pass, true)));
    assert_eq!(first("0.0.2", 1), Ok((StreamAction::Hold, true)));
    assert_eq!(first("0.0.3", 2), Ok((StreamAction::Replace("masked".into()), true)));
    assert_eq!(first("0.0.4", 3), Ok((StreamAction::Stop("masked".into()), false)));
}

#[test]
fn text_cannot_pass_what_is_held() {
    let harness = Harness::new();
    // Holds at first, passes at the third push.
    let guest = Guest::new(PluginKind::Postprocessor)
        .module("(global $pushes (mut i32) (i32.const 0))")
        .hook(
            "push",
            format!(
                "(global.set $pushes (i32.add (global.get $pushes) (i32.const 1)))
                 (if (result i32) (i32.lt_u (global.get $pushes) (i32.const 3))
                   (then {}) (else {}))",
                action(1, 0, 0),
                action(0, 0, 0)
            ),
        );
    let mut stream = harness.activate(&guest).open_stream(&info()).expect("opens");
    assert_eq!(stream.push("x"), Ok(StreamAction::Hold));
    assert_eq!(stream.push("x"), Ok(StreamAction::Hold));
    let kind = fault(stream.push("x"), &guest);
    assert!(kind.to_string().contains("passes while it holds"), "{kind}");
}

#[test]
fn what_one_stream_writes_no_other_reads() {
    let harness = Harness::new();
    // Answers with what a byte of its memory says, and then changes it.
    let guest = Guest::new(PluginKind::Postprocessor).hook(
        "push",
        format!(
            "(local.set $i (i32.load (i32.const {TEXT})))
             (i32.store (i32.const {TEXT}) (i32.const 65))
             (if (result i32) (local.get $i) (then {}) (else {}))",
            action(2, TEXT, 1),
            action(0, 0, 0)
        ),
    );
    let plugin = harness.activate(&guest);
    for _ in 0..100 {
        let mut stream = plugin.open_stream(&info()).expect("opens");
        assert_eq!(stream.push("x"), Ok(StreamAction::Pass), "memory of another stream");
        assert_eq!(stream.push("x"), Ok(StreamAction::Replace("A".into())));
    }
}

#[test]
fn neighbours_of_loops_and_traps_do_not_notice() {
    let harness = Harness::new();
    let bad = [
        Guest::new(PluginKind::Preprocessor).named("looping").hook("process", FOREVER),
        Guest::new(PluginKind::Preprocessor).named("trapping").hook("process", "(unreachable)"),
        Guest::new(PluginKind::Preprocessor)
            .named("growing")
            .hook("process", "(loop (drop (memory.grow (i32.const 1))) (br 0)) (unreachable)"),
    ];
    let bad = bad.map(|guest| harness.activate(&guest));
    let good = Guest::new(PluginKind::Postprocessor).text("ok").hook("push", action(2, TEXT, 2));
    let good = harness.activate(&good);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for plugin in &bad {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    plugin.preprocess(&info(), &[], &Default::default()).expect_err("a fault");
                }
            });
        }
        let streams = (0..4).map(|_| {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut stream = good.open_stream(&info()).expect("opens");
                    for _ in 0..20 {
                        let action = stream.push("x").expect("pushes");
                        assert_eq!(action, StreamAction::Replace("ok".into()));
                    }
                    stream.finish("stop").expect("ends");
                }
            })
        });
        let streams: Vec<_> = streams.collect();
        let ended: Vec<_> = streams.into_iter().map(|stream| stream.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a good stream failed");
    });
    let faults: u64 = harness.host.list().iter().map(|plugin| plugin.faults).sum();
    let text = harness.metrics();
    assert!(faults > 0 && !text.contains("faults_total{plugin=\"test-postprocessor\""), "{text}");
}
