//! Requests as OpenTelemetry sees them, read by a small receiver; and a receiver that is down or deaf, which
//! costs nothing but the spans.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

use crate::harness::{Server, chat_body, heldout};

/// Takes exports: paths and bodies.
fn receiver() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, taken) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender: Sender<_> = sender.clone();
            std::thread::spawn(move || take(stream, &sender));
        }
    });
    (url, taken)
}

/// Reads requests of one connection until it ends.
fn take(mut stream: TcpStream, sender: &Sender<(String, Vec<u8>)>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|text| text.trim().parse().ok()).expect("a length");
            assert!(head.contains("application/x-protobuf"), "{head}");
            if bytes.len() >= end + length {
                let path = head.split(' ').nth(1).expect("a path").to_owned();
                let body = bytes[end..end + length].to_vec();
                bytes.drain(..end + length);
                // The test may have ended.
                let _ = sender.send((path, body));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
        }
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    attributes.iter().find(|one| one.key == key)?.value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match attribute(attributes, key) {
        Some(Any::StringValue(text)) => text.clone(),
        other => panic!("{key} is {other:?}"),
    }
}

fn number(attributes: &[KeyValue], key: &str) -> u64 {
    match attribute(attributes, key) {
        Some(Any::IntValue(number)) => u64::try_from(*number).expect("a count"),
        other => panic!("{key} is {other:?}"),
    }
}

/// Ends the server, which sends what it has, and sorts what has arrived.
fn end(
    server: &mut Server,
    taken: &Receiver<(String, Vec<u8>)>,
) -> (Vec<Span>, Vec<(String, u64)>) {
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0), "{}", server.log_text());
    let (mut spans, mut metrics) = (Vec::new(), Vec::new());
    while let Ok((path, body)) = taken.recv_timeout(Duration::from_millis(200)) {
        match path.as_str() {
            "/v1/traces" => {
                let export = ExportTraceServiceRequest::decode(body.as_slice()).expect("spans");
                for of in export.resource_spans {
                    let resource = of.resource.expect("a resource");
                    assert_eq!(text(&resource.attributes, "service.name"), "mortise");
                    spans.extend(of.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            "/v1/metrics" => {
                let export = ExportMetricsServiceRequest::decode(body.as_slice()).expect("metrics");
                let scopes = export.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
                for metric in scopes.flat_map(|scope| scope.metrics) {
                    let Some(Data::Histogram(histogram)) = metric.data else {
                        panic!("{metric:?}")
                    };
                    let count = histogram.data_points.iter().map(|point| point.count).sum();
                    metrics.push((metric.name, count));
                }
            }
            other => panic!("{other}"),
        }
    }
    (spans, metrics)
}

#[tokio::test]
async fn requests_are_spans_and_measurements() {
    let (url, taken) = receiver();
    let mut server = Server::with_config(&format!("otlp_endpoint = \"{url}\"\n"));
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let mut body = chat_body("npc", &heldout("npc", 0));
    body["seed"] = json!(7);
    let request = server.client.post(format!("{}/v1/chat/completions", server.url)).json(&body);
    let request = request.header("traceparent", format!("00-{trace}-{parent}-01"));
    let answer: serde_json::Value =
        request.send().await.expect("an answer").json().await.expect("JSON");
    let mut streamed = chat_body("support", &heldout("support", 0));
    streamed["stream"] = json!(true);
    server.stream("/v1/chat/completions", streamed).await.expect("a stream");
    server.post("/v1/embeddings", json!({"model": "npc", "input": "hi"})).await;
    assert_eq!(
        server.post("/v1/completions", json!({"model": "nobody", "prompt": "x"})).await.0,
        404
    );
    let (spans, metrics) = end(&mut server, &taken);
    let named = |name: &str| {
        let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {spans:?}");
        found[0]
    };
    let chat = named("chat npc");
    assert_eq!(
        (hex(&chat.trace_id), hex(&chat.parent_span_id)),
        (trace.to_owned(), parent.to_owned())
    );
    let of = &chat.attributes;
    assert_eq!(text(of, "gen_ai.operation.name"), "chat");
    assert_eq!(text(of, "gen_ai.request.model"), "npc");
    assert_eq!(text(of, "gen_ai.response.model"), "npc");
    assert_eq!(text(of, "gen_ai.response.id"), answer["id"].as_str().expect("an id"));
    assert_eq!(number(of, "gen_ai.request.seed"), 7);
    assert_eq!(number(of, "gen_ai.request.max_tokens"), 64);
    let usage = &answer["usage"];
    assert_eq!(Some(number(of, "gen_ai.usage.input_tokens")), usage["prompt_tokens"].as_u64());
    assert_eq!(Some(number(of, "gen_ai.usage.output_tokens")), usage["completion_tokens"].as_u64());
    let reason = answer["choices"][0]["finish_reason"].as_str().expect("a reason").to_owned();
    let Some(Any::ArrayValue(reasons)) = attribute(of, "gen_ai.response.finish_reasons") else {
        panic!("{of:?}");
    };
    assert_eq!(reasons.values, [AnyValue { value: Some(Any::StringValue(reason)) }]);
    assert!(chat.end_time_unix_nano > chat.start_time_unix_nano);
    assert!(number(&named("chat support").attributes, "gen_ai.usage.output_tokens") > 0);
    assert_eq!(text(&named("embeddings npc").attributes, "gen_ai.operation.name"), "embeddings");
    let refused = named("text_completion nobody");
    assert_eq!(text(&refused.attributes, "error.type"), "model_not_found");
    let count = |name: &str| {
        metrics.iter().filter(|(known, _)| known == name).map(|(_, count)| count).max()
    };
    assert_eq!(count("gen_ai.server.request.duration"), Some(&4), "{metrics:?}");
    assert_eq!(count("gen_ai.server.time_to_first_token"), Some(&2), "{metrics:?}");
    assert_eq!(count("gen_ai.server.time_per_output_token"), Some(&2), "{metrics:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_receiver_that_is_down_or_deaf_costs_no_request() {
    // One refuses connections, the other takes them and says nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    for address in [gone, deaf.local_addr().expect("bound")] {
        let mut server =
            Server::without_shipped_plugins(&format!("otlp_endpoint = \"http://{address}\"\n"));
        for _ in 0..4 {
            server.chat("npc", &heldout("npc", 0)).await;
        }
        let began = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0), "{}", server.log_text());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[test]
fn an_endpoint_that_can_t_be_is_refused_at_the_start() {
    let refused = std::process::Command::new(crate::harness::BINARY)
        .args(["serve", "--model", "/nowhere", "--otlp-endpoint", "https://c:4318"])
        .output()
        .expect("the binary starts");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("otlp_endpoint"), "{told}");
}
