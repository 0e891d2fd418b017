//! Logits that the host can't reach: tokens are drawn where they lie, and every answer is the one that
//! the host would have given. A place of the tests' stands for a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use engine::{DevicePlace, Engine, EngineConfig, EngineHandle, LogitsPlace};
use kernels::SampleParams;
use models::LoadOptions;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use request::{SamplingParams, TokenId};

use crate::composition::{Fixture, configs, start};
use crate::fake::{NOT_A_NUMBER, Said, ask, fixture, greedy, read, start_fake_at};
use crate::speculation::{answers, sampling, speculative};

/// A device whose memory is the host's; it counts what is copied off it.
#[derive(Default)]
pub(crate) struct Far {
    drawn: AtomicUsize,
    copied: AtomicUsize,
    fails: bool,
}

impl LogitsPlace for Far {
    fn is_host(&self, _: &Tensor) -> bool {
        false
    }

    fn draw(&self, logits: &Tensor, rows: &[SampleParams]) -> Result<Vec<TokenId>, String> {
        if self.fails {
            return Err("the device fell off".to_owned());
        }
        self.drawn.fetch_add(rows.len(), Ordering::Relaxed);
        DevicePlace.draw(logits, rows)
    }

    fn copy(&self, logits: &Tensor, rows: &[u32]) -> Result<Vec<f32>, String> {
        self.copied.fetch_add(rows.len(), Ordering::Relaxed);
        DevicePlace.copy(logits, rows)
    }
}

impl Far {
    fn counts(&self) -> (usize, usize) {
        (self.drawn.load(Ordering::Relaxed), self.copied.load(Ordering::Relaxed))
    }
}

fn start_far(config: EngineConfig) -> (EngineHandle, Arc<Far>) {
    let far = Arc::new(Far::default());
    let model = models::load(&fixture("llama"), &LoadOptions::default()).unwrap();
    let place: Arc<dyn LogitsPlace> = Arc::<Far>::clone(&far);
    (Engine::start_at(model, place, config).unwrap(), far)
}

#[tokio::test]
async fn answers_are_those_of_the_host() {
    let fixture = Fixture::load();
    let mut random = StdRng::seed_from_u64(8);
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let case = random.random_range(0..fixture.cases.len());
            (case, fixture.cases[case].prompt.clone(), sampling(&mut random))
        })
        .collect();
    let plain = start(EngineConfig { threads: 1, ..EngineConfig::default() });
    let expect = answers(&plain, &fixture, &asked).await;
    for config in configs() {
        for guesses in [None, Some(speculative(4, 1))] {
            let (engine, far) = start_far(EngineConfig { speculative: guesses, ..config });
            let found = answers(&engine, &fixture, &asked).await;
            assert_eq!(found, expect, "{config:?}");
            let (drawn, copied) = far.counts();
            assert!(drawn > 100 && copied > 100, "both ways were gone: {drawn} {copied}");
        }
    }
}

#[tokio::test]
async fn only_rows_that_are_looked_at_are_copied() {
    let fixture = Fixture::load();
    let check = |change: fn(&mut SamplingParams), copied_each: usize| {
        let prompt = fixture.cases[0].prompt.clone();
        async move {
            let (engine, far) = start_far(EngineConfig::default());
            let mut sampling = SamplingParams { temperature: 0.9, seed: 4, ..greedy(10) };
            change(&mut sampling);
            let said = read(engine.submit(ask(&prompt, sampling.clone())).unwrap()).await;
            assert_eq!(said.tokens.len(), 10);
            assert_eq!(far.counts().1, copied_each, "{sampling:?}");
        }
    };
    check(|_| (), 0).await;
    check(|s| s.temperature = 0.0, 0).await;
    check(|s| (s.top_k, s.top_p, s.min_p) = (7, 0.9, 0.01), 0).await;
    check(|s| (s.stop_token_ids, s.min_tokens) = (vec![300], 4), 4).await;
    check(|s| s.min_tokens = 4, 0).await;
    check(|s| s.logprobs = Some(0), 10).await;
    check(|s| s.presence_penalty = 0.1, 10).await;
    check(|s| s.repetition_penalty = 1.1, 10).await;
    check(|s| s.logit_bias = vec![(3, 0.5)], 10).await;
}

#[tokio::test]
async fn failures_are_told_as_on_the_host() {
    let far = || Arc::new(Far::default());
    let bad = || ask(&[NOT_A_NUMBER], greedy(6));
    let on_host = crate::fake::start(EngineConfig::default());
    let expect = read(on_host.submit(bad()).unwrap()).await;
    let engine = start_fake_at(far(), EngineConfig::default());
    let beside = engine.submit(ask(&[5], greedy(6))).unwrap();
    let found = read(engine.submit(bad()).unwrap()).await;
    assert!(found.failed.is_some() && found == expect, "{found:?} {expect:?}");
    assert_eq!(read(beside).await.tokens.len(), 6, "its company goes on");
    // Numbers that no draw takes fail their own request, not the step.
    let wrong = SamplingParams { temperature: -1.0, ..greedy(3) };
    let (wrong, beside) = (ask(&[7], wrong), ask(&[5], greedy(6)));
    let streams = [wrong, beside].map(|request| engine.submit(request).unwrap());
    let [wrong, beside]: [Said; 2] = {
        let [wrong, beside] = streams;
        [read(wrong).await, read(beside).await]
    };
    assert!(wrong.failed.is_some() && beside.failed.is_none(), "{wrong:?}");
    let broken = Arc::new(Far { fails: true, ..Far::default() });
    let engine = start_fake_at(broken, EngineConfig::default());
    let said = read(engine.submit(ask(&[5], greedy(4))).unwrap()).await;
    assert!(said.failed.unwrap().contains("the device fell off"));
    assert!(engine.is_alive());
}
