//! Guessing tokens changes nothing but the number of steps: greedy and seeded, under every penalty
//! and limit, with the fixtures' real model, and its memory of the prompt.

use engine::{EngineConfig, EngineHandle, SpeculativeConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use request::{SamplingParams, TokenId};

use crate::composition::{Fixture, configs, start};
use crate::fake::{END, Said, ask, greedy, read};

pub(crate) fn speculative(tokens: usize, min: usize) -> SpeculativeConfig {
    SpeculativeConfig {
        num_speculative_tokens: tokens,
        prompt_lookup_min: min,
        prompt_lookup_max: min + 3,
        ..SpeculativeConfig::default()
    }
}

/// Everything that may change an answer, in random company.
pub(crate) fn sampling(random: &mut StdRng) -> SamplingParams {
    let mut params = greedy(random.random_range(1..=60));
    if random.random_bool(0.5) {
        params.temperature = random.random_range(0.05..1.3);
        params.seed = random.random();
        params.top_p = [1.0, 0.9, 0.5][random.random_range(0..3)];
        params.top_k = [0, 1, 20][random.random_range(0..3)];
        params.min_p = [0.0, 0.05][random.random_range(0..2)];
    }
    if random.random_bool(0.4) {
        params.repetition_penalty = [1.0, 1.3][random.random_range(0..2)];
        params.presence_penalty = [0.0, 0.7][random.random_range(0..2)];
        params.frequency_penalty = [0.0, -0.5, 0.4][random.random_range(0..3)];
    }
    if random.random_bool(0.3) {
        params.logit_bias = vec![(random.random_range(0..200), random.random_range(-5.0..9.0))];
    }
    if random.random_bool(0.4) {
        params.ignore_eos = false;
        params.stop_token_ids = (0..8).map(|_| random.random_range(0..250)).collect();
        params.min_tokens = random.random_range(0..=params.max_tokens.min(20));
    }
    params.logprobs = random.random_bool(0.3).then_some(3);
    params.prompt_logprobs = random.random_bool(0.2).then_some(1);
    params
}

pub(crate) async fn answers(
    engine: &EngineHandle,
    fixture: &Fixture,
    asked: &[(usize, Vec<TokenId>, SamplingParams)],
) -> Vec<Said> {
    let submit = |(case, prompt, sampling): &(usize, Vec<TokenId>, SamplingParams)| {
        let mut request = fixture.request(*case, sampling.clone());
        request.prompt = prompt.clone();
        engine.submit(request).unwrap()
    };
    let streams: Vec<_> = asked.iter().map(submit).collect();
    let mut all = Vec::new();
    for stream in streams {
        let mut said = read(stream).await;
        // How much the cache held depends on the company.
        if let Some((_, usage)) = &mut said.end {
            usage.cached_tokens = 0;
        }
        all.push(said);
    }
    all
}

#[tokio::test]
async fn answers_are_the_same_with_and_without_guesses() {
    let fixture = Fixture::load();
    let mut random = StdRng::seed_from_u64(3);
    let asked: Vec<_> = (0..48)
        .map(|_| {
            let case = random.random_range(0..fixture.cases.len());
            // Repetitive prompts, so that there is something to guess by.
            let mut prompt = fixture.cases[case].prompt.clone();
            let repeats = random.random_range(0..4);
            for _ in 0..repeats {
                prompt.extend_from_within(..prompt.len().min(6));
            }
            (case, prompt, sampling(&mut random))
        })
        .collect();
    let plain = start(EngineConfig { threads: 1, ..EngineConfig::default() });
    let expect = answers(&plain, &fixture, &asked).await;
    assert_eq!(plain.metrics().drafts(), (0, 0));
    let ended_early = expect.iter().filter(|said| said.end.unwrap().0.as_str() == "stop").count();
    assert!(ended_early > 3, "stops were met: {ended_early}");
    let mut totals = (0, 0);
    for (index, config) in configs().into_iter().enumerate() {
        for (tokens, min) in [(1, 1), (4, 2), (7, 1)] {
            let speculative = Some(speculative(tokens, min));
            let targets = [(None, None), (Some(1), Some(1))][index % 2];
            let (itl_target_ms, ttft_target_ms) = targets;
            let config = EngineConfig { speculative, itl_target_ms, ttft_target_ms, ..config };
            let engine = start(config);
            // In small groups, or the batch would leave no room for guesses.
            let mut found = Vec::new();
            for group in asked.chunks(6) {
                found.extend(answers(&engine, &fixture, group).await);
            }
            for (found, expect) in found.iter().zip(&expect) {
                assert_eq!(found, expect, "{config:?}");
            }
            engine.drain().await;
            assert_eq!(engine.stats().blocks_used, 0);
            let (drafted, accepted) = engine.metrics().drafts();
            assert!(accepted <= drafted);
            totals = (totals.0 + drafted, totals.1 + accepted);
        }
    }
    // How many depends on whether the machine makes them pay.
    assert!(totals.0 > 200 && totals.1 > 60, "guesses were made and were right: {totals:?}");
}

#[tokio::test]
async fn guesses_stop_where_the_batch_is_large_and_at_the_last_token() {
    // The fake goes round in circles sooner or later, which is what guesses live of.
    let speculative = Some(SpeculativeConfig {
        disable_by_batch_size: 2,
        prompt_lookup_min: 1,
        ..SpeculativeConfig::default()
    });
    let engine = crate::fake::start(EngineConfig { speculative, ..EngineConfig::default() });
    let said = read(engine.submit(ask(&[5], greedy(200))).unwrap()).await;
    assert_eq!(said.tokens.len(), 200);
    assert_eq!(engine.metrics().drafts(), (0, 0), "one row is all that may be beside another");
    let speculative = Some(SpeculativeConfig::default());
    let engine = crate::fake::start(EngineConfig { speculative, ..EngineConfig::default() });
    for max_tokens in [1, 2, 3, 200] {
        // Everything is the end token, and the end is ignored: all guesses are right.
        let sampling = SamplingParams { logit_bias: vec![(END, 100.0)], ..greedy(max_tokens) };
        let said = read(engine.submit(ask(&[5, 6, END, END, END], sampling)).unwrap()).await;
        assert_eq!(said.tokens, vec![END; max_tokens as usize]);
    }
    let (drafted, accepted) = engine.metrics().drafts();
    assert!(drafted == accepted && accepted > 4, "{drafted} {accepted}");
}
