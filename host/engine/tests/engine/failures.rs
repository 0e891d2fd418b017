//! A model that fails, panics or gives what is no number.

use engine::{EngineConfig, SubmitError};

use crate::fake::{FAILS, NOT_A_NUMBER, PANICS, ask, greedy, read, start, start_gated};

#[tokio::test]
async fn a_failed_forward_fails_its_requests_and_the_engine_goes_on() {
    let engine = start(EngineConfig::default());
    let said = read(engine.submit(ask(&[5, FAILS], greedy(4))).unwrap()).await;
    assert!(said.failed.unwrap().contains("the model failed"));
    assert!(said.end.is_none());
    assert_eq!(read(engine.submit(ask(&[5], greedy(4))).unwrap()).await.tokens.len(), 4);
    engine.drain().await;
    assert_eq!(engine.stats().blocks_used, 0);
}

#[tokio::test]
async fn a_logit_that_is_no_number_fails_its_sequence_alone() {
    let (engine, gate) = start_gated(EngineConfig::default());
    let first = engine.submit(ask(&[5], greedy(6))).unwrap();
    gate.wait();
    let bad = engine.submit(ask(&[NOT_A_NUMBER], greedy(6))).unwrap();
    drop(gate);
    let bad = read(bad).await;
    assert!(bad.failed.is_some() && bad.tokens.is_empty(), "{bad:?}");
    let first = read(first).await;
    assert_eq!((first.tokens.len(), first.failed), (6, None));
}

#[tokio::test]
async fn a_panic_ends_the_engine_and_every_stream_and_is_told() {
    let (engine, gate) = start_gated(EngineConfig::default());
    let beside = engine.submit(ask(&[5], greedy(100))).unwrap();
    gate.wait();
    let fatal = engine.submit(ask(&[PANICS], greedy(1))).unwrap();
    let waiting = engine.submit(ask(&[6], greedy(1))).unwrap();
    drop(gate);
    engine.ended().await;
    for stream in [beside, fatal, waiting] {
        assert!(read(stream).await.end.is_none(), "a stream that was cut off looks finished");
    }
    assert!(!engine.is_alive());
    assert_eq!(engine.submit(ask(&[5], greedy(1))).err(), Some(SubmitError::Stopped));
}
