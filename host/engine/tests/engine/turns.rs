//! Who runs first, who is given up, and who is not let in.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use engine::{
    EngineConfig, EngineEvent, EngineRequest, OutputStream, SpeculativeConfig, SubmitError,
};

use crate::fake::{Gate, ask, greedy, read, start, start_gated};

/// Lets `steps` forwards through.
fn run(gate: &Gate, steps: usize) {
    for _ in 0..steps {
        gate.step();
        gate.wait();
    }
}

fn whose(tenant: &str, priority: i64, tokens: u32) -> EngineRequest {
    EngineRequest { tenant: tenant.to_owned(), priority, ..ask(&[5, 6], greedy(tokens)) }
}

#[tokio::test]
async fn the_urgent_overtake_and_tenants_take_turns() {
    let config = EngineConfig { sequences_max: 1, ..EngineConfig::default() };
    let (engine, gate) = start_gated(config);
    let running = engine.submit(whose("hot", 0, 1)).unwrap();
    gate.wait();
    let order = [("hot", 0), ("hot", 0), ("hot", 0), ("cold", 0), ("late", 9), ("now", -1)];
    let mut streams: Vec<OutputStream> = order
        .into_iter()
        .map(|(tenant, priority)| engine.submit(whose(tenant, priority, 1)).unwrap())
        .collect();
    // Each step is one request's whole answer. Of the tenants the hot one came first; then it is the
    // other's turn, and then the rest of what came before.
    let mut ended = Vec::new();
    for _ in 0..streams.len() {
        run(&gate, 1);
        let answered = (0..streams.len()).filter(|at| has_answered(&mut streams[*at]));
        ended.extend(answered.collect::<Vec<_>>());
    }
    assert_eq!(ended, [5, 0, 3, 1, 2], "and the last is being answered");
    drop(gate);
    assert_eq!(read(running).await.tokens.len(), 1);
    assert_eq!(read(streams.remove(4)).await.tokens.len(), 1);
}

/// Whether there is a token, which is taken.
fn has_answered(stream: &mut OutputStream) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let event = pin!(stream.next()).poll(&mut context);
    matches!(event, Poll::Ready(Some(EngineEvent::Token { .. })))
}

#[tokio::test]
async fn an_urgent_request_takes_the_place_of_one_that_runs_and_both_answer_the_same() {
    let config = EngineConfig { sequences_max: 1, ..EngineConfig::default() };
    let alone = start(config);
    let expect = read(alone.submit(whose("a", 0, 30)).unwrap()).await.tokens;
    let (engine, gate) = start_gated(config);
    let patient = engine.submit(whose("a", 5, 30)).unwrap();
    gate.wait();
    run(&gate, 7);
    let urgent = engine.submit(whose("a", -5, 30)).unwrap();
    run(&gate, 31);
    let urgent = read(urgent).await;
    assert_eq!(urgent.tokens, expect, "it ran at once, to its end");
    drop(gate);
    assert_eq!(read(patient).await.tokens, expect, "what it had is computed again");
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_and_who_runs_is_not() {
    for limit in [None, Some(3_600_000)] {
        let config =
            EngineConfig { sequences_max: 1, queue_wait_ms_max: limit, ..EngineConfig::default() };
        let (engine, gate) = start_gated(config);
        let runs = engine.submit(ask(&[5], greedy(3))).unwrap();
        gate.wait();
        let within = Duration::from_nanos(1);
        let late = EngineRequest { start_within: Some(within), ..ask(&[5], greedy(3)) };
        let late = engine.submit(late).unwrap();
        // No clock is waited for: the deadline has passed once its tick has.
        let before = std::time::Instant::now();
        while before.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        run(&gate, 1);
        let said = read(late).await;
        assert!(said.expired.is_some() && said.tokens.is_empty(), "{said:?}");
        drop(gate);
        assert_eq!(read(runs).await.tokens.len(), 3);
        engine.drain().await;
        assert_eq!(engine.stats().blocks_used, 0);
    }
}

#[tokio::test]
async fn a_tenant_that_fills_its_share_leaves_room_for_others() {
    let config = EngineConfig {
        sequences_max: 1,
        queue_max: 4,
        queue_tenant_max: 2,
        kv_blocks: 10,
        block_tokens: 10,
        queue_kv_fills_max: 1,
        ..EngineConfig::default()
    };
    let (engine, gate) = start_gated(config);
    let mut streams = vec![engine.submit(whose("hot", 0, 1)).unwrap()];
    gate.wait();
    streams.push(engine.submit(whose("hot", 0, 1)).unwrap());
    streams.push(engine.submit(whose("hot", 0, 1)).unwrap());
    let refused = engine.submit(whose("hot", 0, 1)).err();
    assert_eq!(refused, Some(SubmitError::QueueShare { whose: "tenant", queued: 2, limit: 2 }));
    // Six tokens wait; a hundred may.
    let expensive = engine.submit(whose("cold", 0, 93)).err();
    let tokens = SubmitError::QueueTokens { tokens: 95, queued_tokens: 6, queue_tokens_max: 100 };
    assert_eq!(expensive, Some(tokens));
    streams.push(engine.submit(whose("cold", 0, 92)).unwrap());
    drop(gate);
    for stream in streams {
        assert!(read(stream).await.end.is_some());
    }
}

#[test]
fn settings_that_cannot_be_do_not_start() {
    let check = |config: EngineConfig, name: &str| {
        let error = crate::fake::try_start(config).expect_err(name).to_string();
        assert!(error.starts_with(name), "{error}");
    };
    let default = EngineConfig::default();
    check(EngineConfig { queue_max: 0, ..default }, "queue_max");
    check(EngineConfig { ttft_target_ms: Some(5), ..default }, "ttft_target_ms");
    let speculative = SpeculativeConfig { num_speculative_tokens: 0, ..Default::default() };
    let config = EngineConfig { speculative: Some(speculative), ..default };
    check(config, "num_speculative_tokens");
}
