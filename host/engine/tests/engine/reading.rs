//! Log probabilities and penalties against plain arithmetic over the fake's known logits.

use engine::EngineConfig;
use request::{FinishReason, SamplingParams};

use crate::fake::{ask, greedy, logits, model_config, read, start};

/// Natural log of the softmax, in f64.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|value| f64::from(value - max).exp()).sum();
    row.iter().map(|value| f64::from(value - max) - sum.ln()).collect()
}

#[tokio::test]
async fn log_probabilities_are_the_models_own() {
    let vocab_size = model_config().vocab_size;
    let engine =
        start(EngineConfig { step_tokens_max: 3, sequences_max: 3, ..EngineConfig::default() });
    let prompt = [5, 9, 200, 31, 7];
    let sampling = SamplingParams {
        logprobs: Some(3),
        prompt_logprobs: Some(2),
        // Neither changes what is reported.
        temperature: 0.7,
        presence_penalty: 1.5,
        seed: 3,
        ..greedy(4)
    };
    let said = read(engine.submit(ask(&prompt, sampling)).unwrap()).await;
    let mut tokens = prompt.to_vec();
    tokens.extend_from_slice(&said.tokens);
    let of_prompt = said.prompt.unwrap();
    assert_eq!(of_prompt.len(), prompt.len());
    assert!(of_prompt[0].is_none());
    let all = of_prompt[1..].iter().chain(&said.logprobs);
    for (position, found) in all.enumerate() {
        let found = found.as_ref().unwrap();
        let expect = log_softmax(&logits(tokens[position], position as u32, vocab_size));
        assert_eq!(found.token, tokens[position + 1]);
        let close = |id: u32, value: f32| (expect[id as usize] - f64::from(value)).abs() < 1e-4;
        assert!(close(found.token, found.logprob), "position {position}");
        let wanted = if position + 1 < prompt.len() { 2 } else { 3 };
        assert_eq!(found.top.len(), wanted);
        assert!(found.top.iter().all(|(id, value)| close(*id, *value)));
        let best = expect.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((best - f64::from(found.top[0].1)).abs() < 1e-4, "the best comes first");
    }
}

#[tokio::test]
async fn a_stop_token_has_a_log_probability_and_is_no_part_of_the_answer() {
    let engine = start(EngineConfig::default());
    let ask = async |sampling| read(engine.submit(ask(&[5, 9, 200], sampling)).unwrap()).await;
    let whole = ask(SamplingParams { logprobs: Some(2), ..greedy(3) }).await;
    assert_eq!((whole.tokens.len(), &whole.stop), (3, &None));
    // The first and the last token as stops: beside it, nothing changes.
    for stop in [0, 2] {
        let stop_token_ids = vec![whole.tokens[stop]];
        let sampling = SamplingParams { stop_token_ids, ..greedy(3) };
        let said = ask(SamplingParams { logprobs: Some(2), ..sampling.clone() }).await;
        assert_eq!(said.tokens, whole.tokens[..stop]);
        assert_eq!(said.logprobs, whole.logprobs[..stop]);
        let (token, logprob) = said.stop.unwrap();
        assert_eq!((token, Some(logprob)), (whole.tokens[stop], whole.logprobs[stop].clone()));
        let (reason, usage) = said.end.unwrap();
        assert_eq!((reason, usage.completion_tokens), (FinishReason::Stop, stop as u32 + 1));
        assert_eq!(ask(sampling).await.stop, None, "nobody asked for it");
    }
}

#[tokio::test]
async fn only_the_prompt_may_be_scored() {
    let engine = start(EngineConfig::default());
    let sampling = SamplingParams { prompt_logprobs: Some(0), ..greedy(0) };
    let said = read(engine.submit(ask(&[5, 6, 7], sampling.clone())).unwrap()).await;
    assert_eq!(said.prompt.as_ref().map(Vec::len), Some(3));
    assert_eq!((said.tokens.len(), said.end.unwrap().1.completion_tokens), (0, 0));
    // The same prompt again is scored again, whatever the prefix cache has.
    let again = read(engine.submit(ask(&[5, 6, 7], sampling)).unwrap()).await;
    assert_eq!(again.prompt, said.prompt);
}

#[tokio::test]
async fn penalties_are_vllms() {
    let vocab_size = model_config().vocab_size;
    let engine = start(EngineConfig::default());
    let prompt = [5, 9];
    let (presence, frequency, repetition) = (0.8_f32, 0.3_f32, 1.2_f32);
    let sampling = SamplingParams {
        presence_penalty: presence,
        frequency_penalty: frequency,
        repetition_penalty: repetition,
        ..greedy(40)
    };
    let said = read(engine.submit(ask(&prompt, sampling)).unwrap()).await;
    let mut tokens = prompt.to_vec();
    for (step, token) in said.tokens.iter().enumerate() {
        let position = tokens.len() - 1;
        let mut row = logits(tokens[position], position as u32, vocab_size);
        let output = &said.tokens[..step];
        for (id, value) in row.iter_mut().enumerate() {
            let id = id as u32;
            if tokens.contains(&id) {
                *value = if *value > 0.0 { *value / repetition } else { *value * repetition };
            }
            let count = output.iter().filter(|token| **token == id).count() as f32;
            *value -= frequency * count + if count > 0.0 { presence } else { 0.0 };
        }
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let close = (row[*token as usize] - best).abs() < 1e-5;
        assert!(close, "step {step}: {token} has {}, the best {best}", row[*token as usize]);
        tokens.push(*token);
    }
}
