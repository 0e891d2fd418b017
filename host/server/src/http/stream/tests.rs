//! The bytes of a stream, against golden files; `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use pipeline::{Alternative, Attribution, AttributionStatus, Credit, MatchedSpan, PipelineError};
use pipeline::{Summary, TokenPiece};

use super::*;
use crate::http::calls::Reading;
use crate::http::wire::sampling::Shape;
use engine::Timing;

fn id(digit: u8) -> RequestId {
    RequestId::new("test", [digit; 16])
}

fn writer(endpoint: Endpoint, shape: Shape, prompts: u8, n: u32) -> Writer {
    let envelope = Envelope {
        endpoint,
        id: id(0),
        created: 1_700_000_000,
        fingerprint: "fp_0123456789ab".to_owned(),
        shape,
        n,
        reading: Reading::Text,
    };
    let prompt = |digit| Prompt {
        id: id(digit),
        model: "wallet-risk".to_owned(),
        tokens: vec![1, 5, 6].into(),
        choices: (0..n).map(|choice| ChoiceState::new(&envelope, choice, false)).collect(),
        done: None,
    };
    let prompts = (0..prompts).map(prompt).collect();
    Writer { envelope, prompts, queue: VecDeque::new() }
}

fn delta(choice: u32, text: &str) -> AnswerEvent {
    let top = vec![Alternative { id: 9, text: "b".to_owned(), bytes: None, logprob: -0.5 }];
    let bytes = Some(text.as_bytes().to_vec());
    let piece = TokenPiece { id: 7, text: text.to_owned(), bytes, logprob: Some(-1.25), top };
    AnswerEvent::Delta { choice, text: text.to_owned(), tokens: vec![piece], ids: vec![7] }
}

fn finished(choice: u32, reason: FinishReason) -> AnswerEvent {
    AnswerEvent::Finished { choice, reason }
}

fn done(attribution: bool) -> AnswerEvent {
    let credits = vec![Credit { contributor: "ada".to_owned(), parts_per_billion: 1_000_000_000 }];
    let span = MatchedSpan {
        choice: 0,
        text: "the wallet".to_owned(),
        tokens: 6,
        occurrences: 3,
        contributors: vec!["ada".to_owned()],
        documents: vec!["ada-1".to_owned()],
    };
    let attribution = attribution.then(|| Attribution {
        status: AttributionStatus::Scored,
        method: "spans@1+span-rarity@0.1.0".to_owned(),
        credits,
        spans: vec![span],
        note: None,
    });
    let usage = Usage { prompt_tokens: 12, completion_tokens: 3, cached_tokens: 8 };
    AnswerEvent::Done(Summary {
        usage,
        timing: Timing::default(),
        attribution,
        receipt_hash: "ab".repeat(32),
    })
}

fn check(name: &str, mut writer: Writer, events: Vec<(usize, AnswerEvent)>) {
    let last = events.len() - 1;
    for (index, event) in events.into_iter().enumerate() {
        assert_eq!(writer.take(Some(event)), index == last, "{name}: event {index}");
    }
    check_golden(name, &Vec::from(writer.queue));
}

/// Compares lines with a golden file.
pub(crate) fn check_golden(name: &str, lines: &[String]) {
    let mut text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    if text != golden {
        text.insert_str(0, "found:\n");
        panic!("{name} differs from its golden file; {text}");
    }
}

fn shape(include_usage: bool, mortise: bool, logprobs: bool) -> Shape {
    Shape {
        stream: true,
        include_usage,
        continuous_usage: false,
        token_ids: false,
        mortise,
        attribution: mortise,
        logprobs,
    }
}

#[test]
fn a_chat_of_two_choices_with_everything() {
    let events = vec![
        (0, delta(0, "a")),
        (0, delta(1, "é\n")),
        (0, delta(0, "c")),
        (0, finished(1, FinishReason::Length)),
        (0, finished(0, FinishReason::Stop)),
        (0, done(true)),
    ];
    check("chat-all.jsonl", writer(Endpoint::Chat, shape(true, true, true), 1, 2), events);
}

#[test]
fn calls_in_a_chat() {
    let read = |name: &str, reading: Reading, texts: &[&str]| {
        let mut writer = writer(Endpoint::Chat, shape(false, false, false), 1, 1);
        writer.envelope.reading = reading;
        writer.prompts[0].choices = vec![ChoiceState::new(&writer.envelope, 0, false)];
        let said = texts.iter().map(|text| AnswerEvent::Delta {
            choice: 0,
            text: (*text).to_owned(),
            tokens: Vec::new(),
            ids: vec![7],
        });
        let ends = [finished(0, FinishReason::Stop), done(false)];
        check(name, writer, said.chain(ends).map(|event| (0, event)).collect());
    };
    let format = tokenization::ToolCallFormat::Hermes;
    let texts = [
        "I ",
        "look.\n<tool",
        "_call>\n{\"name\": \"f\", ",
        "\"arguments\": {\"a\": 1}}\n</tool_call>",
    ];
    read("chat-calls.jsonl", Reading::Calls { format, parallel: true }, &texts);
    let named = Reading::Arguments { name: "f".to_owned() };
    read("chat-named-call.jsonl", named, &["{\"a\"", ": 1}"]);
}

#[test]
fn a_plain_chat_has_no_chunk_without_choices() {
    let events =
        vec![(0, delta(0, "a")), (0, finished(0, FinishReason::ContentFilter)), (0, done(false))];
    check("chat-plain.jsonl", writer(Endpoint::Chat, shape(false, false, false), 1, 1), events);
}

#[test]
fn completions_of_two_prompts_end_together() {
    let events = vec![
        (1, delta(0, "é")),
        (1, delta(0, "c")),
        (1, finished(0, FinishReason::Stop)),
        (1, done(true)),
        (0, delta(0, "a")),
        (0, finished(0, FinishReason::Stop)),
        (0, done(true)),
    ];
    let writer = writer(Endpoint::Completion, shape(true, true, true), 2, 1);
    check("completion-two.jsonl", writer, events);
}

#[test]
fn token_ids_and_usage_on_every_chunk() {
    let shape = Shape { continuous_usage: true, token_ids: true, ..shape(true, false, false) };
    let events = |n: u32| {
        let mut events = vec![(0, delta(0, "a")), (0, delta(n - 1, "b"))];
        events.extend((0..n).map(|choice| (0, finished(choice, FinishReason::Stop))));
        events.push((0, done(false)));
        events
    };
    check("chat-continuous.jsonl", writer(Endpoint::Chat, shape, 1, 1), events(1));
    check("completion-continuous.jsonl", writer(Endpoint::Completion, shape, 1, 2), events(2));
}

#[test]
fn a_choice_that_was_not_asked_for_is_left_out() {
    let mut writer = writer(Endpoint::Chat, shape(false, false, false), 1, 1);
    assert!(!writer.take(Some((0, delta(1, "a")))));
    assert!(!writer.take(Some((0, finished(1, FinishReason::Stop)))));
    assert!(writer.queue.is_empty());
}

#[test]
fn a_failure_ends_the_stream_with_the_error_object() {
    let failed =
        PipelineError::PluginFailed { plugin: "mask".to_owned(), reason: "trap".to_owned() };
    let events = vec![(0, delta(0, "a")), (0, AnswerEvent::Failed(failed))];
    check("chat-failed.jsonl", writer(Endpoint::Chat, shape(true, true, false), 1, 1), events);
}

#[test]
fn a_stream_that_breaks_off_says_so() {
    let mut writer = writer(Endpoint::Chat, shape(false, false, false), 1, 1);
    assert!(writer.take(None));
    assert!(writer.queue[0].contains("internal error"), "{}", writer.queue[0]);
    assert_eq!(writer.queue[1], "[DONE]");
}
