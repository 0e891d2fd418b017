//! Chat templates against what `transformers` makes of them: see `fixtures/chat_templates/make.py`.

use std::path::{Path, PathBuf};

use request::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenization::{ChatTemplate, ToolCallFormat};

#[derive(Deserialize)]
struct Case {
    template: String,
    name: String,
    messages: Vec<Message>,
    variables: Map<String, Value>,
    add_generation_prompt: bool,
    expected: Option<String>,
    error: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_templates")
}

fn compile(source: &str) -> ChatTemplate {
    let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let tokens = tokens.as_object().expect("an object").clone();
    ChatTemplate::new(source, tokens).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let text = std::fs::read_to_string(fixtures().join("expected.json")).expect("expectations");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("JSON");
    assert!(cases.len() > 120);
    for case in cases {
        let source = std::fs::read_to_string(fixtures().join(&case.template)).expect("a template");
        let template = compile(&source);
        let rendered = template.render(&case.messages, case.add_generation_prompt, case.variables);
        let (name, kind) = (&case.template, &case.name);
        match (rendered, case.expected, case.error) {
            (Ok(text), Some(expected), _) => assert_eq!(text, expected, "{name}: {kind}"),
            (Err(error), None, Some(expected)) => {
                let error = error.to_string();
                assert!(error.contains(&expected), "{name}: {kind}: {error}");
            }
            (rendered, expected, error) => {
                panic!("{name}: {kind}: {rendered:?}, not {expected:?} {error:?}")
            }
        }
    }
}

#[test]
fn templates_show_how_their_models_call() {
    let check = |template: &str, expect: Option<ToolCallFormat>| {
        let source = std::fs::read_to_string(fixtures().join(template)).expect("a template");
        assert_eq!(compile(&source).tool_call_format(), expect, "{template}");
    };
    check("qwen2.5-tools.jinja", Some(ToolCallFormat::Hermes));
    check("llama-3.1-tools.jinja", Some(ToolCallFormat::Llama3Json));
    check("chatml.jinja", None);
    check("gemma.jinja", None);
    assert_eq!(compile("{{ '<tool_call>' }}").tool_call_format(), None);
}

#[test]
fn the_date_is_todays_where_a_template_asks() {
    let template = compile("{{ strftime_now('%Y-%m-%d') }}");
    let text = template.render(&[], false, Map::new()).expect("a date");
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    assert!(text.len() == 10 && digits == 8 && text.as_str() >= "2026-01-01", "{text}");
    let wrong = compile("{{ strftime_now('%') }}").render(&[], false, Map::new());
    assert!(wrong.is_err_and(|error| error.to_string().contains("strftime_now")));
}

#[test]
fn a_template_without_an_end_is_stopped() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let error = compile(endless).render(&[], false, Map::new()).expect_err("out of fuel");
    assert!(error.to_string().contains("fuel"), "{error}");
}

#[test]
fn what_does_not_parse_is_named_with_its_line() {
    let error = ChatTemplate::new("{% if x %}\n{% endfor %}", Map::new()).expect_err("bad");
    assert!(error.to_string().contains('2'), "{error}");
}
