//! What the door lets in, and when streams end.

use engine::{EngineConfig, SubmitError};
use request::FinishReason;

use crate::fake::{ask, greedy, model_config, read, start, start_gated};

#[test]
fn prompts_at_and_beyond_what_fits() {
    let vocab_size = model_config().vocab_size;
    let config = EngineConfig { kv_blocks: 4, block_tokens: 4, ..EngineConfig::default() };
    let engine = start(config);
    assert_eq!(engine.tokens_max(), 16);
    let check = |prompt: &[u32], max_tokens: u32, expect: Option<SubmitError>| {
        assert_eq!(engine.submit(ask(prompt, greedy(max_tokens))).err(), expect, "{max_tokens}");
    };
    check(&[5; 10], 5, None);
    check(&[5; 10], 6, None);
    check(&[5; 10], 7, Some(SubmitError::TooLong { tokens: 17, limit: 16 }));
    check(
        &[5],
        u32::MAX,
        Some(SubmitError::TooLong { tokens: 1 + (u32::MAX as usize), limit: 16 }),
    );
    check(&[], 1, Some(SubmitError::EmptyPrompt));
    let last = vocab_size as u32 - 1;
    check(&[last], 1, None);
    let outside = SubmitError::TokenOutOfVocab { token: last + 1, vocab_size };
    check(&[last + 1], 1, Some(outside));
}

#[tokio::test]
async fn the_queue_holds_so_many_and_no_more() {
    let config = EngineConfig { sequences_max: 1, queue_max: 2, ..EngineConfig::default() };
    let (engine, gate) = start_gated(config);
    let mut streams = vec![engine.submit(ask(&[5], greedy(1))).unwrap()];
    // It runs, so it does not wait any more.
    gate.wait();
    for _ in 0..2 {
        streams.push(engine.submit(ask(&[5], greedy(1))).unwrap());
    }
    let full = engine.submit(ask(&[5], greedy(1))).err();
    assert_eq!(full, Some(SubmitError::QueueFull { queued: 2, queue_max: 2 }));
    gate.step();
    for _ in 0..2 {
        gate.wait();
        gate.step();
    }
    for stream in streams {
        assert_eq!(read(stream).await.tokens.len(), 1);
    }
    let last = engine.submit(ask(&[5], greedy(1))).unwrap();
    gate.wait();
    gate.step();
    assert_eq!(read(last).await.tokens.len(), 1);
}

#[tokio::test]
async fn a_dropped_stream_frees_its_slot_at_the_next_step() {
    let config = EngineConfig { sequences_max: 1, ..EngineConfig::default() };
    let (engine, gate) = start_gated(config);
    let leaving = engine.submit(ask(&[5; 40], greedy(100))).unwrap();
    gate.wait();
    let waiting = engine.submit(ask(&[6], greedy(1))).unwrap();
    drop(leaving);
    // The step it was in ends; the next one is the other's, and its only one.
    gate.step();
    gate.wait();
    gate.step();
    let said = read(waiting).await;
    assert_eq!(said.end.unwrap().0, FinishReason::Length);
    drop(gate);
    engine.drain().await;
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
}

#[tokio::test]
async fn who_leaves_the_queue_makes_room_in_it() {
    let config = EngineConfig { sequences_max: 1, queue_max: 1, ..EngineConfig::default() };
    let (engine, gate) = start_gated(config);
    let running = engine.submit(ask(&[5], greedy(3))).unwrap();
    gate.wait();
    let leaving = engine.submit(ask(&[6], greedy(1))).unwrap();
    assert!(engine.submit(ask(&[7], greedy(1))).is_err());
    drop(leaving);
    gate.step();
    gate.wait();
    let next = engine.submit(ask(&[7], greedy(1))).unwrap();
    drop(gate);
    assert_eq!(read(running).await.tokens.len(), 3);
    assert_eq!(read(next).await.tokens.len(), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_slow_reader() {
    let engine = start(EngineConfig::default());
    let slow = engine.submit(ask(&[5], greedy(300))).unwrap();
    let quick = engine.submit(ask(&[6], greedy(300))).unwrap();
    assert_eq!(read(quick).await.tokens.len(), 300);
    engine.drain().await;
    // Everything the slow one was told is there.
    assert_eq!(read(slow).await.tokens.len(), 300);
}

#[tokio::test]
async fn a_drain_lets_the_running_finish_and_nobody_in() {
    let (engine, gate) = start_gated(EngineConfig::default());
    let running = engine.submit(ask(&[5], greedy(4))).unwrap();
    gate.wait();
    let mut drain = Box::pin(engine.drain());
    let waits = tokio::select! {
        biased;
        () = &mut drain => false,
        () = std::future::ready(()) => true,
    };
    assert!(waits, "a sequence is running");
    assert_eq!(engine.submit(ask(&[5], greedy(1))).err(), Some(SubmitError::Draining));
    drop(gate);
    drain.await;
    assert_eq!(read(running).await.tokens.len(), 4);
    assert!(engine.is_alive(), "a drain is not the end");
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle_or_when_told() {
    let engine = start(EngineConfig::default());
    let stream = engine.submit(ask(&[5], greedy(20))).unwrap();
    drop(engine);
    assert_eq!(read(stream).await.tokens.len(), 20, "what was taken is finished");
    let engine = start(EngineConfig::default());
    engine.shutdown();
    engine.ended().await;
    assert!(!engine.is_alive());
    assert_eq!(engine.submit(ask(&[5], greedy(1))).err(), Some(SubmitError::Stopped));
    engine.drain().await;
}
