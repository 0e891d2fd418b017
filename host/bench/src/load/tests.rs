//! The generator against a server that behaves as told: what is asked, counted and timed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::fake::{Behavior, Fake};
use super::*;
use crate::BenchError;

fn target(label: &str, url: &str) -> Target {
    Target {
        label: label.to_owned(),
        url: url.to_owned(),
        model: None,
        api_key: None,
        dialect: Dialect::OpenAi { prefix: "adapter-".to_owned() },
        endpoint: Endpoint::Completions,
        ignore_eos: true,
        body: Map::new(),
    }
}

fn workload() -> Workload {
    Workload {
        prompt_tokens: Tokens { min: 4, max: 4 },
        output_tokens: Tokens { min: 5, max: 5 },
        form: PromptForm::Ids,
        vocab: 1000,
        adapters: 3,
        popularity: Popularity::None,
    }
}

fn comparison(targets: Vec<Target>, arrivals: Arrivals) -> Comparison {
    Comparison {
        targets,
        scenarios: vec![Scenario { name: "s".to_owned(), arrivals, workload: workload() }],
        length: Length::Requests(12),
        warmup: 0,
        repeats: 1,
        timeout: Duration::from_secs(20),
        seed: 1,
        forget: None,
    }
}

const THREE: Arrivals = Arrivals::Closed { streams: 3 };

async fn measure(comparison: &Comparison) -> Vec<ScenarioResult> {
    compare(comparison, |_| ()).await.expect("measured")
}

/// The only side's only scenario.
async fn summary(comparison: &Comparison) -> Summary {
    let mut results = measure(comparison).await;
    assert_eq!((results.len(), results[0].sides.len()), (1, 1));
    results.remove(0).sides.remove(0).median
}

#[tokio::test]
async fn a_closed_loop_counts_what_was_answered() {
    let fake = Fake::start(&[Behavior::Answer]).await;
    let mut comparison = comparison(vec![target("a", &format!("{}/", fake.url))], THREE);
    comparison.scenarios[0].workload.popularity = Popularity::Distinct;
    let summary = summary(&comparison).await;
    assert_eq!((summary.completed, summary.cut, summary.failed), (12, 0, 0));
    assert_eq!((summary.prompt_tokens, summary.output_tokens), (48, 60));
    assert_eq!((summary.ttft_ms.count, summary.itl_ms.count), (12, 48));
    assert_eq!((summary.tpot_ms.count, summary.latency_ms.count), (12, 12));
    assert_eq!((summary.ttft_warm_ms.count, summary.ttft_cold_ms.count), (6, 6));
    assert_eq!((summary.itl_warm_ms.count, summary.itl_cold_ms.count), (24, 24));
    assert_eq!((summary.adapter_wait_ms.p50, summary.adapter_wait_ms.count), (12.5, 6));
    assert!(summary.output_tokens_per_s > 0.0 && summary.ttft_ms.p50 > 0.0);
    assert!(summary.latency_ms.p50 >= summary.ttft_ms.p50);
    // The probe, then three streams with an adapter each.
    let asked = fake.asked();
    assert_eq!(asked.len(), 13);
    let names: BTreeSet<&str> = asked.iter().filter_map(|body| body["model"].as_str()).collect();
    assert!(names.iter().all(|name| name.starts_with("adapter-0000")), "{names:?}");
    let prompts: BTreeSet<String> = asked.iter().map(|body| body["prompt"].to_string()).collect();
    assert_eq!(prompts.len(), 13, "no prompt comes twice");
}

#[tokio::test]
async fn pauses_of_the_server_are_in_the_times() {
    let pause = Duration::from_millis(5);
    let fake = Fake::start(&[Behavior::Slow(pause)]).await;
    let summary = summary(&comparison(vec![target("a", &fake.url)], THREE)).await;
    // Clocks may not run fast, whatever the machine does; how slow they run is its own affair.
    assert!(summary.ttft_ms.p50 >= 5.0, "{:?}", summary.ttft_ms);
    assert!(summary.tpot_ms.p50 >= 4.5, "{:?}", summary.tpot_ms);
    assert!(summary.latency_ms.p50 >= 25.0, "{:?}", summary.latency_ms);
    assert!(summary.output_tokens_per_s <= 3.0 * 200.0, "{}", summary.output_tokens_per_s);
}

#[tokio::test]
async fn failures_are_counted_by_cause() {
    let done = "data: {\"choices\": [{\"text\": \"x\"}]}\n\ndata: [DONE]\n\n";
    let fake = Fake::start(&[
        Behavior::Answer,
        Behavior::Refuse(429),
        Behavior::Refuse(500),
        Behavior::Refuse(429),
        Behavior::Abort,
        Behavior::Raw("data: {\"choices\": []}\n\n"),
        Behavior::Raw("data: {\"error\": {\"message\": \"lost\"}}\n\n"),
        Behavior::Raw("data: <html>\n\n"),
        Behavior::Raw("data: [DONE]\n\n"),
        Behavior::Raw(done),
    ])
    .await;
    let one = Arrivals::Closed { streams: 1 };
    let mut comparison = comparison(vec![target("a", &fake.url)], one);
    comparison.length = Length::Requests(10);
    let summary = summary(&comparison).await;
    let counts: BTreeMap<&str, u64> =
        summary.failures.iter().map(|(cause, failures)| (cause.as_str(), failures.count)).collect();
    let expect = [
        ("broken stream", 1),
        ("cut short", 1),
        ("empty", 1),
        ("error in stream", 1),
        ("malformed", 1),
        ("status 429", 2),
        ("status 500", 1),
    ];
    assert_eq!(counts, BTreeMap::from(expect));
    assert_eq!((summary.completed, summary.failed), (2, 8));
    // Without usage, the pieces are counted.
    assert_eq!(summary.output_tokens, 2);
    assert!(summary.failures["status 429"].example.contains("no"));
    assert!(summary.failures["error in stream"].example.contains("lost"));
}

#[tokio::test]
async fn a_server_that_is_silent_or_gone_is_no_hang() {
    let fake = Fake::start(&[Behavior::Answer, Behavior::Silent]).await;
    let mut comparison = comparison(vec![target("a", &fake.url)], THREE);
    comparison.timeout = Duration::from_millis(50);
    comparison.length = Length::Requests(3);
    let summary = summary(&comparison).await;
    assert_eq!((summary.failed, summary.failures["timeout"].count), (3, 3));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    comparison.targets = vec![Target { model: Some("base".to_owned()), ..target("a", &url) }];
    let error = compare(&comparison, |_| ()).await.expect_err("it hangs up");
    let BenchError::Server { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.starts_with("the first request failed: connection: "), "{reason}");
}

#[tokio::test]
async fn time_cuts_a_closed_loop_and_keeps_what_came() {
    let fake = Fake::start(&[Behavior::Answer, Behavior::Slow(Duration::from_millis(10))]).await;
    let mut comparison = comparison(vec![target("a", &fake.url)], THREE);
    comparison.scenarios[0].workload.output_tokens = Tokens { min: 100_000, max: 100_000 };
    comparison.length = Length::Time(Duration::from_millis(300));
    // The probe is answered without pauses.
    let summary = summary(&comparison).await;
    assert_eq!((summary.completed, summary.cut, summary.failed), (0, 3, 0));
    assert!((3..=90).contains(&summary.output_tokens), "{}", summary.output_tokens);
    assert!(summary.wall_s < 5.0, "{}", summary.wall_s);
}

#[tokio::test]
async fn an_open_loop_does_not_wait_for_answers() {
    let fake = Fake::start(&[Behavior::Answer, Behavior::Silent]).await;
    let arrivals = Arrivals::Open { rate_per_s: 1000.0, in_flight_max: 4 };
    let mut comparison = comparison(vec![target("a", &fake.url)], arrivals);
    comparison.timeout = Duration::from_millis(500);
    let summary = summary(&comparison).await;
    let causes = ["timeout", "not sent"].map(|cause| summary.failures[cause].count);
    assert_eq!(causes, [4, 8]);

    let fake = Fake::start(&[Behavior::Answer]).await;
    comparison.targets = vec![target("a", &fake.url)];
    comparison.timeout = Duration::from_secs(20);
    comparison.scenarios[0].arrivals = Arrivals::Open { rate_per_s: 200.0, in_flight_max: 4096 };
    comparison.length = Length::Time(Duration::from_millis(250));
    comparison.warmup = 5;
    let summary = self::summary(&comparison).await;
    assert_eq!((summary.failed, summary.cut), (0, 0));
    // As many as its own seed makes arrive: about 50.
    assert!((25..80).contains(&summary.completed), "{}", summary.completed);
    assert_eq!(fake.asked().len() as u64, 1 + 5 + summary.completed);
}

#[tokio::test]
async fn two_servers_take_turns_and_are_asked_the_same() {
    let fakes = [Fake::start(&[Behavior::Answer]).await, Fake::start(&[Behavior::Answer]).await];
    let one = Arrivals::Closed { streams: 1 };
    let targets = vec![target("ours", &fakes[0].url), target("peer", &fakes[1].url)];
    let mut comparison = comparison(targets, one);
    (comparison.repeats, comparison.length, comparison.warmup) = (3, Length::Requests(2), 1);
    let mut order = Vec::new();
    let results = compare(&comparison, |progress| {
        if let Progress::Measured { label, repeat, .. } = progress {
            order.push(format!("{label} {repeat}"));
        }
    });
    let results = results.await.expect("measured");
    let turns = ["ours 1", "peer 1", "peer 2", "ours 2", "ours 3", "peer 3"];
    assert_eq!(order, turns);
    // The third is the first of those that ask whether a server is at rest: three, and one or more behind
    // each measurement.
    let probe = fakes[0].asked()[2].clone();
    let [ours, peer] = fakes.map(|fake| {
        let (probes, rest): (Vec<_>, Vec<_>) =
            fake.asked().into_iter().partition(|body| *body == probe);
        assert!(probes.len() >= 3 + 3, "{}", probes.len());
        rest
    });
    assert_eq!(ours, peer);
    assert_eq!(ours.len(), 1 + 1 + 3 * 2);
    let sides = &results[0].sides;
    assert_eq!((sides[0].label.as_str(), sides[0].runs.len()), ("ours", 3));
    assert!(results[0].ratios.expect("two sides").output_tokens_per_s > 0.0);
}

#[tokio::test]
async fn settings_that_can_not_be_are_refused() {
    let check = async |change: fn(&mut Comparison), expect: &str| {
        let mut comparison = comparison(vec![target("a", "http://127.0.0.1:9")], THREE);
        change(&mut comparison);
        let error = compare(&comparison, |_| ()).await.expect_err(expect);
        assert_eq!(error.to_string(), expect);
    };
    check(|c| c.repeats = 0, "repeat: must be at least 1").await;
    check(|c| c.length = Length::Requests(0), "requests: must be at least 1").await;
    check(|c| c.length = Length::Time(Duration::ZERO), "seconds: must be above 0").await;
    let streams: fn(&mut Comparison) =
        |c| c.scenarios[0].arrivals = Arrivals::Closed { streams: 0 };
    check(streams, "concurrency: must be at least 1").await;
    let rate: fn(&mut Comparison) =
        |c| c.scenarios[0].arrivals = Arrivals::Open { rate_per_s: f64::NAN, in_flight_max: 1 };
    check(rate, "rate: must be from 0.001 to 1000000 requests per second").await;
    check(|c| c.targets[0].endpoint = Endpoint::Chat, "prompt-form: chats take text alone").await;
    check(|c| c.scenarios[0].workload.vocab = 5, "vocab: must be above 262 and below 2^32, is 5")
        .await;
}

#[tokio::test]
async fn keys_models_and_chats_are_sent() {
    let fake = Fake::start(&[Behavior::Answer]).await;
    let mut target = target("a", &fake.url);
    target.endpoint = Endpoint::Chat;
    target.body = json!({"top_k": 1}).as_object().expect("an object").clone();
    let mut comparison = comparison(vec![target], THREE);
    comparison.scenarios[0].workload.form = PromptForm::Text;
    let summary = summary(&comparison).await;
    assert_eq!((summary.completed, summary.output_tokens), (12, 60));
    let asked = fake.asked();
    let is_chat = |body: &Value| body["messages"][0]["content"].is_string();
    assert!(asked.iter().all(|body| is_chat(body) && body["top_k"] == 1));
    assert!(asked.iter().all(|body| body["model"] == "base"), "the first of its models");
}
