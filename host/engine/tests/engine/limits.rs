//! What ends an answer, each at, below and above.

use engine::EngineConfig;
use request::{FinishReason, SamplingParams, TokenId};

use crate::fake::{END, ask, greedy, likeliest, model_config, read, start};

/// The fake's greedy answer to a prompt of one token.
fn answer(prompt: TokenId, tokens: usize) -> Vec<TokenId> {
    let vocab_size = model_config().vocab_size;
    let mut all = vec![prompt];
    for position in 0..tokens as u32 {
        all.push(likeliest(*all.last().unwrap(), position, vocab_size));
    }
    all.split_off(1)
}

#[tokio::test]
async fn max_tokens_counts_to_the_token() {
    let engine = start(EngineConfig::default());
    for max_tokens in [1, 2, 30] {
        let said = read(engine.submit(ask(&[5], greedy(max_tokens))).unwrap()).await;
        assert_eq!(said.tokens, answer(5, max_tokens as usize));
        let (reason, usage) = said.end.unwrap();
        assert_eq!(reason, FinishReason::Length);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (1, max_tokens));
    }
    let said = read(engine.submit(ask(&[5], greedy(0))).unwrap()).await;
    assert_eq!((said.tokens.len(), said.end.unwrap().0), (0, FinishReason::Length));
}

#[tokio::test]
async fn stop_tokens_end_the_answer_and_are_not_part_of_it() {
    let engine = start(EngineConfig::default());
    let whole = answer(5, 30);
    let stop = whole[7];
    let first = whole.iter().position(|token| *token == stop).unwrap();
    let sampling = SamplingParams { stop_token_ids: vec![stop], ..greedy(30) };
    let said = read(engine.submit(ask(&[5], sampling.clone())).unwrap()).await;
    assert_eq!(said.tokens, whole[..first]);
    let (reason, usage) = said.end.unwrap();
    assert_eq!((reason, usage.completion_tokens), (FinishReason::Stop, first as u32 + 1));
    // Before min_tokens no stop token may be sampled at all.
    let sampling = SamplingParams { min_tokens: first as u32 + 1, ..sampling };
    let said = read(engine.submit(ask(&[5], sampling)).unwrap()).await;
    assert_eq!(said.tokens[..first], whole[..first]);
    assert_ne!(said.tokens[first], stop);
}

#[tokio::test]
async fn the_models_own_end_ends_unless_it_is_ignored() {
    let engine = start(EngineConfig::default());
    // Biased so that the end token is the likeliest everywhere.
    let ends = SamplingParams { ignore_eos: false, logit_bias: vec![(END, 100.0)], ..greedy(5) };
    let said = read(engine.submit(ask(&[5], ends.clone())).unwrap()).await;
    assert_eq!((said.tokens.len(), said.end.unwrap().0), (0, FinishReason::Stop));
    let ignored = SamplingParams { ignore_eos: true, ..ends.clone() };
    let said = read(engine.submit(ask(&[5], ignored)).unwrap()).await;
    assert_eq!((said.tokens, said.end.unwrap().0), (vec![END; 5], FinishReason::Length));
    let later = SamplingParams { min_tokens: 3, ..ends };
    let said = read(engine.submit(ask(&[5], later)).unwrap()).await;
    assert_eq!((said.tokens.len(), said.end.unwrap().0), (3, FinishReason::Stop));
}
