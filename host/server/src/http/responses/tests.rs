//! The bytes of a response's events, against golden files; `UPDATE_GOLDEN=1` writes them anew.

use pipeline::PipelineError;
use request::Usage;

use super::*;
use crate::http::body::parse;
use crate::http::calls::Reading;
use crate::http::stream::tests::check_golden;
use crate::http::wire::responses::ResponsesBody;
use engine::Timing;

fn writer(mortise: bool) -> ResponseWriter {
    reading(mortise, &Reading::Text)
}

fn reading(mortise: bool, reading: &Reading) -> ResponseWriter {
    let body = "{\"model\": \"auto\", \"input\": \"hi\", \"max_output_tokens\": 9, \"seed\": 1, \
                \"metadata\": {\"k\": \"v\"}, \"instructions\": \"be brief\"}";
    let body: ResponsesBody = parse(body.as_bytes()).expect("a body");
    let id = RequestId::new("resp", [7; 16]);
    let mut blank = body.blank(id.as_str(), 1_700_000_000);
    blank["model"] = "wallet-risk".into();
    let reader = CallReader::new(reading, &id, 0, false);
    ResponseWriter::new(id, blank, reader, mortise)
}

fn delta(choice: u32, text: &str) -> AnswerEvent {
    AnswerEvent::Delta { choice, text: text.to_owned(), tokens: Vec::new(), ids: vec![3] }
}

fn done() -> AnswerEvent {
    let usage = Usage { prompt_tokens: 12, completion_tokens: 3, cached_tokens: 8 };
    AnswerEvent::Done(Summary {
        usage,
        timing: Timing::default(),
        attribution: None,
        receipt_hash: "ab".repeat(32),
    })
}

fn check(name: &str, mut writer: ResponseWriter, events: Vec<AnswerEvent>) {
    let last = events.len() - 1;
    for (index, event) in events.into_iter().enumerate() {
        assert_eq!(writer.take(Some(event)), index == last, "{name}: event {index}");
    }
    let lines: Vec<String> =
        writer.queue.iter().map(|(event, data)| format!("{event} {data}")).collect();
    check_golden(name, &lines);
}

#[test]
fn a_response_in_events() {
    let finished = AnswerEvent::Finished { choice: 0, reason: FinishReason::Stop };
    let events =
        vec![delta(0, "a"), delta(0, ""), delta(0, "é\n"), delta(1, "x"), finished, done()];
    check("responses-all.jsonl", writer(true), events);
}

#[test]
fn a_response_that_reached_its_limit_is_incomplete() {
    let finished = AnswerEvent::Finished { choice: 0, reason: FinishReason::Length };
    check("responses-incomplete.jsonl", writer(false), vec![delta(0, "a"), finished, done()]);
}

#[test]
fn calls_are_items_of_their_own() {
    let finished = || AnswerEvent::Finished { choice: 0, reason: FinishReason::Stop };
    let format = tokenization::ToolCallFormat::Hermes;
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    let events = vec![
        delta(0, "I "),
        delta(0, "look. "),
        delta(0, call),
        delta(0, call),
        finished(),
        done(),
    ];
    let calls = Reading::Calls { format, parallel: true };
    check("responses-calls.jsonl", reading(false, &calls), events);
    let named = Reading::Arguments { name: "f".to_owned() };
    let events = vec![delta(0, "{\"a\""), delta(0, ": 1}"), finished(), done()];
    check("responses-named-call.jsonl", reading(false, &named), events);
}

#[test]
fn a_failure_is_the_last_event() {
    let failed =
        PipelineError::PluginFailed { plugin: "mask".to_owned(), reason: "trap".to_owned() };
    let events = vec![delta(0, "a"), AnswerEvent::Failed(failed)];
    check("responses-failed.jsonl", writer(false), events);
    let mut broken = writer(false);
    assert!(broken.take(None));
    let (name, data) = broken.queue.back().expect("an event");
    assert_eq!(
        (*name, &data["response"]["error"]["message"]),
        ("response.failed", &json!("internal error"))
    );
}
