//! Means of hidden states: the reference's, the same bits in any composition, and no token beside them.

use engine::{EngineConfig, SubmitError};
use request::FinishReason;

use crate::composition::{Fixture, configs, start};
use crate::fake::{self, ask, fixture, greedy, hidden, read};

/// Means that transformers computes, by name of the case.
fn expected(fixture_name: &str, case: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture(fixture_name).join("embeddings.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(case).unwrap();
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[tokio::test]
async fn means_are_the_references_and_the_same_bits_in_any_composition() {
    let fixture = Fixture::load();
    let mut first: Vec<Vec<f32>> = Vec::new();
    for config in configs() {
        let engine = start(config);
        for round in 0..2 {
            // With answers in between, which share blocks and steps and preempt.
            let answers: Vec<_> =
                (0..4).map(|case| fixture.submit(&engine, case, greedy(24))).collect();
            let pooled: Vec<_> = (0..fixture.cases.len())
                .map(|case| engine.pool(fixture.request(case, greedy(9))).unwrap())
                .collect();
            for (case, stream) in pooled.into_iter().enumerate() {
                let said = read(stream).await;
                let mean = said.pooled.unwrap();
                assert_eq!((said.tokens.len(), said.prompt), (0, None));
                let (reason, usage) = said.end.unwrap();
                assert_eq!(reason, FinishReason::Length);
                assert_eq!(usage.prompt_tokens as usize, fixture.cases[case].prompt.len());
                assert_eq!((usage.completion_tokens, usage.cached_tokens), (0, 0));
                if first.len() == case {
                    let expect = expected("llama", &fixture.cases[case].name);
                    assert_eq!(mean.len(), expect.len());
                    let differs = |(a, b): (&f32, &f32)| (a - b).abs();
                    let largest = mean.iter().zip(&expect).map(differs).fold(0.0, f32::max);
                    assert!(largest < 1e-4, "case {case} differs by {largest}");
                    first.push(mean.clone());
                }
                let same = mean.iter().zip(&first[case]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "case {case}, round {round}, {config:?}");
            }
            for (case, answer) in answers.into_iter().enumerate() {
                let expect = &fixture.cases[case].continuation[..24];
                assert_eq!(read(answer).await.tokens, expect);
            }
        }
        engine.drain().await;
        let stats = engine.stats();
        assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0), "{config:?}");
    }
}

#[tokio::test]
async fn limits_of_a_pooled_prompt() {
    let config = EngineConfig { context_tokens_max: 8, threads: 1, ..EngineConfig::default() };
    let engine = fake::start(config);
    let width = fake::model_config().hidden_size;
    for tokens in [1, 7, 8] {
        let said = read(engine.pool(ask(&vec![5; tokens], greedy(1))).unwrap()).await;
        assert_eq!(said.pooled.unwrap(), hidden(5, width), "{tokens} tokens");
    }
    let refused = engine.pool(ask(&[5; 9], greedy(1))).unwrap_err();
    assert_eq!(refused, SubmitError::TooLong { tokens: 9, limit: 8 });
    assert_eq!(engine.pool(ask(&[], greedy(1))).unwrap_err(), SubmitError::EmptyPrompt);
    let failed = read(engine.pool(ask(&[fake::FAILS], greedy(1))).unwrap()).await;
    assert!(failed.failed.is_some() && failed.pooled.is_none());
}
