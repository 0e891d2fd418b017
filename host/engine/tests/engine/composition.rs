//! What a request gets does not depend on its company, on how its prompt was cut, on preemption or on
//! what the prefix cache holds: checked with the fixtures' real model and its adapters.

use std::num::NonZeroUsize;
use std::sync::Arc;

use engine::{Engine, EngineConfig, EngineHandle, EngineRequest, OutputStream, SubmitError};
use models::{LoadOptions, TensorParallel};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use request::{SamplingParams, TokenId};
use serde::Deserialize;

use crate::fake::{Said, fixture, greedy, read, request};

#[derive(Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    adapter: Option<String>,
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) continuation: Vec<TokenId>,
}

/// The llama of the fixtures with every adapter of its cases.
pub(crate) struct Fixture {
    pub(crate) cases: Vec<Case>,
    pub(crate) adapters: Vec<Option<Arc<lora::Adapter>>>,
}

impl Fixture {
    pub(crate) fn load() -> Self {
        let shape = models::ModelConfig::from_dir(&fixture("llama")).unwrap().model_shape();
        Self::of_shape(&shape)
    }

    /// With adapters laid out for a model of this shape.
    fn of_shape(shape: &lora::ModelShape) -> Self {
        let dir = fixture("llama");
        let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        let adapter = |name: &String| {
            let dir = dir.join("adapters").join(name);
            Arc::new(lora::Adapter::from_dir(&dir, shape).unwrap())
        };
        let adapters = cases.iter().map(|case| case.adapter.as_ref().map(adapter)).collect();
        Self { cases, adapters }
    }

    pub(crate) fn submit(
        &self,
        engine: &EngineHandle,
        case: usize,
        sampling: SamplingParams,
    ) -> OutputStream {
        engine.submit(self.request(case, sampling)).unwrap()
    }

    pub(crate) fn request(&self, case: usize, sampling: SamplingParams) -> EngineRequest {
        request(self.cases[case].prompt.clone(), sampling, self.adapters[case].clone())
    }
}

pub(crate) fn start(config: EngineConfig) -> EngineHandle {
    let model = models::load(&fixture("llama"), &LoadOptions::default()).unwrap();
    Engine::start(model, config).unwrap()
}

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 1.1, top_p: 0.9, top_k: 50, seed, ..greedy(48) }
}

/// Configurations that pack, cut, preempt and share as differently as can be.
pub(crate) fn configs() -> Vec<EngineConfig> {
    let default = EngineConfig { threads: 1, ..EngineConfig::default() };
    vec![
        default,
        EngineConfig { prefix_cache: false, ..default },
        EngineConfig { step_tokens_max: 7, sequences_max: 7, ..default },
        EngineConfig { block_tokens: 3, step_tokens_max: 11, sequences_max: 5, ..default },
        // Little more than one request needs: most of them are preempted again and again.
        EngineConfig { block_tokens: 4, kv_blocks: 40, ..default },
        // Steps that may take no time at all: prompts run block by block.
        EngineConfig { itl_target_ms: Some(1), ttft_target_ms: Some(1000), ..default },
    ]
}

#[tokio::test]
async fn greedy_answers_are_the_references_in_any_composition() {
    let fixture = Fixture::load();
    for config in configs() {
        let engine = start(config);
        // Twice, so that the second round finds what the first left in the cache.
        for _ in 0..2 {
            let streams: Vec<_> = (0..fixture.cases.len())
                .map(|case| fixture.submit(&engine, case, greedy(64)))
                .collect();
            for (stream, case) in streams.into_iter().zip(&fixture.cases) {
                assert_eq!(read(stream).await.tokens, case.continuation, "{config:?}");
            }
        }
        engine.drain().await;
        let stats = engine.stats();
        assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0), "{config:?}");
    }
}

#[tokio::test]
async fn ranks_that_share_a_model_give_its_answers() {
    let one = NonZeroUsize::MIN;
    let parallel = Some(TensorParallel { ranks: one.saturating_add(1), threads: one });
    let options = LoadOptions { parallel, ..LoadOptions::default() };
    let model = models::load(&fixture("llama"), &options).unwrap();
    let fixture = Fixture::of_shape(&model.adapter_shape());
    let config =
        EngineConfig { block_tokens: 3, step_tokens_max: 11, sequences_max: 5, ..configs()[0] };
    let engine = Engine::start(model, config).unwrap();
    let streams: Vec<_> =
        (0..fixture.cases.len()).map(|case| fixture.submit(&engine, case, greedy(64))).collect();
    for (stream, case) in streams.into_iter().zip(&fixture.cases) {
        assert_eq!(read(stream).await.tokens, case.continuation);
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_tokens_in_any_composition() {
    let fixture = Fixture::load();
    let mut alone: Vec<Vec<TokenId>> = Vec::new();
    for config in configs() {
        let engine = start(config);
        if alone.is_empty() {
            for case in 0..fixture.cases.len() {
                let stream = fixture.submit(&engine, case, sampled(case as u64));
                alone.push(read(stream).await.tokens);
            }
        }
        let streams: Vec<_> = (0..fixture.cases.len())
            .rev()
            .map(|case| (case, fixture.submit(&engine, case, sampled(case as u64))))
            .collect();
        for (case, stream) in streams {
            assert_eq!(read(stream).await.tokens, alone[case], "{config:?}");
        }
    }
    let engine = start(configs()[0]);
    let other = read(fixture.submit(&engine, 0, sampled(99))).await.tokens;
    assert_ne!(other, alone[0], "the seed has no effect");
}

#[tokio::test]
async fn a_prefix_is_shared_with_the_same_adapter_and_tenant_only() {
    let fixture = Fixture::load();
    let engine = start(EngineConfig { threads: 1, block_tokens: 4, ..EngineConfig::default() });
    let prompt = fixture.cases[0].prompt.clone();
    let ask = |adapter: usize, salt: &str| {
        let adapter = fixture.adapters[adapter].clone();
        let request = request(prompt.clone(), greedy(8), adapter);
        read(engine.submit(EngineRequest { cache_salt: salt.to_owned(), ..request }).unwrap())
    };
    let cached = |said: &Said| said.end.unwrap().1.cached_tokens;
    let first = ask(1, "a").await;
    assert_eq!(cached(&first), 0);
    let again = ask(1, "a").await;
    // Whole blocks, and never the last token: it has to be run for its logits.
    assert_eq!(cached(&again) as usize, (prompt.len() - 1) / 4 * 4);
    assert_eq!(again.tokens, first.tokens);
    assert_eq!(cached(&ask(1, "b").await), 0, "another tenant's");
    assert_eq!(cached(&ask(2, "a").await), 0, "another adapter's");
    assert_eq!(cached(&ask(0, "a").await), 0, "no adapter");
}

#[tokio::test]
async fn nothing_leaks_through_thousands_of_requests_and_departures() {
    let fixture = Fixture::load();
    let config = EngineConfig {
        threads: 1,
        block_tokens: 4,
        kv_blocks: 64,
        step_tokens_max: 24,
        sequences_max: 8,
        queue_max: 16,
        ..EngineConfig::default()
    };
    let engine = start(config);
    let mut random = StdRng::seed_from_u64(11);
    let (mut streams, mut refused, mut finished): (Vec<OutputStream>, u32, u32) =
        Default::default();
    for _ in 0..3000 {
        let case = random.random_range(0..fixture.cases.len());
        let prompt = fixture.cases[case].prompt[..random.random_range(1..=9)].to_vec();
        let sampling = greedy(random.random_range(1..=12));
        let adapter = fixture.adapters[case].clone();
        match engine.submit(request(prompt, sampling, adapter)) {
            Ok(stream) => {
                streams.push(stream);
                continue;
            }
            Err(SubmitError::QueueFull { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        let stream = streams.swap_remove(random.random_range(0..streams.len()));
        // Half of them leave, wherever their request stands.
        if random.random_bool(0.5) {
            assert!(read(stream).await.end.is_some());
            finished += 1;
        }
    }
    assert!(finished > 300 && refused > 600, "{finished} finished, {refused} refused");
    drop(streams);
    engine.drain().await;
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_used), (0, 0, 0));
    let leases = fixture.adapters.iter().flatten();
    assert!(
        leases.into_iter().all(|adapter| Arc::strong_count(adapter) == 1),
        "an adapter is held"
    );
}
