//! Sequences whose tokens are bound by masks: they follow them, end where they end, fail alone.

use engine::{ConstraintDriver, EngineConfig, EngineHandle, Mask, constraint};
use request::{FinishReason, TokenId};

use crate::fake::{Said, ask, greedy, likeliest, logits, model_config, read, start};

fn engine() -> EngineHandle {
    start(EngineConfig { threads: 1, ..EngineConfig::default() })
}

/// A mask that allows some tokens.
fn allow(tokens: &[TokenId]) -> Mask {
    let mut words = vec![0_u32; model_config().vocab_size.div_ceil(32)];
    for token in tokens {
        words[*token as usize / 32] |= 1 << (token % 32);
    }
    Mask::Allowed(words)
}

/// Sends masks in turn and returns the tokens that were told.
async fn drive(mut driver: ConstraintDriver, masks: Vec<Mask>) -> Vec<TokenId> {
    let mut told = Vec::new();
    for mask in masks {
        // The engine lets go of its end as soon as the sequence has ended.
        if !driver.send(mask) {
            break;
        }
        let Some(token) = driver.next().await else { break };
        told.push(token);
    }
    told
}

async fn bound(engine: &EngineHandle, masks: Vec<Mask>) -> (Said, Vec<TokenId>) {
    let (bounds, driver) = constraint();
    let stream = engine.submit_constrained(ask(&[5], greedy(4)), bounds).unwrap();
    tokio::join!(read(stream), drive(driver, masks))
}

#[tokio::test]
async fn the_likeliest_of_what_is_allowed_is_chosen() {
    let engine = engine();
    let vocab_size = model_config().vocab_size;
    let free = read(engine.submit(ask(&[5], greedy(4))).unwrap());
    let masks = vec![allow(&[9]), allow(&[7, 11, 40]), Mask::Done];
    let ((said, told), free) = tokio::join!(bound(&engine, masks), free);
    let row = logits(9, 1, vocab_size);
    let best = [7, 11, 40].into_iter().max_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        row[a].total_cmp(&row[b]).then(b.cmp(&a))
    });
    assert_eq!(said.tokens, [9, best.unwrap()]);
    assert_eq!(told, said.tokens);
    let (reason, usage) = said.end.unwrap();
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Stop, 2));
    // Its company is free.
    assert_eq!(free.tokens[0], likeliest(5, 0, vocab_size));
    assert_eq!(free.end.unwrap().0, FinishReason::Length);
}

#[tokio::test]
async fn a_limit_ends_what_a_mask_would_let_go_on() {
    let masks = (0..5).map(|_| allow(&[8, 9])).collect();
    let (said, told) = bound(&engine(), masks).await;
    assert_eq!(said.end.unwrap().0, FinishReason::Length);
    assert_eq!((said.tokens.len(), told.len()), (4, 4));
}

#[tokio::test]
async fn what_cannot_be_followed_fails_alone() {
    let engine = engine();
    for masks in [vec![Mask::Failed("why".to_owned())], vec![allow(&[])], vec![]] {
        let free = read(engine.submit(ask(&[5], greedy(4))).unwrap());
        let ((said, _), free) = tokio::join!(bound(&engine, masks), free);
        assert!(said.failed.is_some() && said.tokens.is_empty(), "{said:?}");
        assert_eq!(free.tokens.len(), 4);
    }
    engine.drain().await;
    assert_eq!(engine.stats().running, 0);
}
