//! Random walks through masks: whatever is chosen among what is allowed, the text fits the grammar.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokenization::{Allowed, Grammar, GrammarCompiler, Tokenizer};

fn tokenizer() -> Arc<Tokenizer> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tiny/model");
    Arc::new(Tokenizer::from_dir(&dir).expect("the demo's tokenizer"))
}

/// The end token of the demo's model.
const END: u32 = 2;

fn compiler(tokenizer: &Tokenizer) -> GrammarCompiler {
    // Two end tokens, and a vocabulary that the model pads.
    GrammarCompiler::new(tokenizer, tokenizer.vocab_size() + 7, &[END, END + 1])
        .expect("a compiler")
}

/// A text by choices that `seed` decides; `None` if it has not ended after 400 tokens.
fn walk(tokenizer: &Tokenizer, grammar: &Grammar, mut seed: u64) -> Option<String> {
    let compiler = compiler(tokenizer);
    let mut matcher = compiler.compile(grammar).expect("a grammar");
    let mut tokens = Vec::new();
    for _ in 0..400 {
        let words = match matcher.allowed().expect("a mask") {
            Allowed::Done => return Some(tokenizer.decode(&tokens, true).expect("text")),
            Allowed::Tokens(words) => words,
        };
        let is_set = |id: &u32| words[*id as usize / 32] >> (id % 32) & 1 == 1;
        let allowed: Vec<u32> = (0..words.len() as u32 * 32).filter(is_set).collect();
        assert!(!allowed.is_empty(), "a dead end behind {tokens:?}");
        assert_eq!(is_set(&END), is_set(&(END + 1)), "end tokens come together");
        assert!(allowed.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "padding");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Ends are taken where they may be; else strings would seldom close.
        let closing: Vec<u32> = allowed
            .iter()
            .copied()
            .filter(|id| tokenizer.token_bytes(*id).is_some_and(|bytes| bytes == b"\""))
            .collect();
        let from = if seed >> 60 < 4 && !closing.is_empty() { &closing } else { &allowed };
        let token = from[(seed >> 33) as usize % from.len()];
        if token == END || token == END + 1 {
            return Some(tokenizer.decode(&tokens, true).expect("text"));
        }
        matcher.accept(token).expect("an allowed token");
        tokens.push(token);
    }
    None
}

fn check(grammar: &Grammar, fits: impl Fn(&str) -> bool) {
    let tokenizer = tokenizer();
    let mut ended = 0;
    for seed in 0..20 {
        if let Some(text) = walk(&tokenizer, grammar, seed) {
            assert!(fits(&text), "{grammar:?} gave {text:?}");
            ended += 1;
        }
    }
    assert!(ended > 5, "only {ended} of 20 walks ended");
}

#[test]
fn texts_fit_their_grammars() {
    let schema = json!({
        "type": "object",
        "properties": {
            "risk": {"enum": ["low", "high"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 99},
            "ok": {"type": "boolean"},
        },
        "required": ["risk", "score", "ok"],
        "additionalProperties": false,
    });
    check(&Grammar::JsonSchema(schema), |text| {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let score = value["score"].as_i64().expect("a score");
        let risk = value["risk"].as_str();
        matches!(risk, Some("low" | "high"))
            && (0..100).contains(&score)
            && value["ok"].is_boolean()
    });
    check(&Grammar::Regex("[a-c]{3}-[0-9]{2}".to_owned()), |text| {
        let bytes = text.as_bytes();
        bytes.len() == 6 && bytes[3] == b'-' && bytes[..3].iter().all(|b| (b'a'..=b'c').contains(b))
    });
    let choices = ["yes", "no \"quoted\"", "naïve\n"].map(str::to_owned).to_vec();
    let any = choices.clone();
    check(&Grammar::Choice(choices), |text| any.iter().any(|choice| choice == text));
    // One begins as the other does, and nothing is a choice too.
    for choices in [vec!["a", "ab", "abc"], vec!["", "no"], vec![""]] {
        let choices: Vec<String> = choices.into_iter().map(str::to_owned).collect();
        let any = choices.clone();
        check(&Grammar::Choice(choices), |text| any.iter().any(|choice| choice == text));
    }
    let many: Vec<String> = (0..20_000).map(|number| format!("v{number}")).collect();
    check(&Grammar::Choice(many), |text| {
        text.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n < 20_000))
    });
    check(&Grammar::Lark("start: \"a\" (\"b\" | \"c\") \"d\"".to_owned()), |text| {
        matches!(text, "abd" | "acd")
    });
}

#[test]
fn any_object_is_json() {
    // Read without its numbers' values: JSON has numbers that no float holds.
    check(&Grammar::json_object(), |text| {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && text.starts_with('{')
    });
}

#[test]
fn grammars_that_say_nothing_are_refused() {
    let tokenizer = tokenizer();
    let compiler = compiler(&tokenizer);
    for grammar in [
        Grammar::JsonSchema(json!({"type": "shape"})),
        Grammar::JsonSchema(json!({"type": "string", "pattern": "("})),
        Grammar::JsonSchema(json!({"$ref": "#/nowhere"})),
        Grammar::JsonSchema(json!(4)),
        Grammar::Regex("(".to_owned()),
        Grammar::Lark("start: other".to_owned()),
        Grammar::Choice(Vec::new()),
    ] {
        assert!(compiler.compile(&grammar).is_err(), "{grammar:?} was taken");
    }
    assert!(GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &[]).is_err());
}

#[test]
fn grammars_that_no_text_fits_or_that_are_too_large_are_refused_before_anything_runs() {
    let tokenizer = tokenizer();
    let compiler = compiler(&tokenizer);
    let check = |grammar: Grammar, expect: &str| {
        let error = compiler.compile(&grammar).err().expect("must be refused").to_string();
        assert!(error.contains(expect), "{error:?} should say {expect:?}");
        assert!(!error.contains('<') && error.len() < 300, "{error:?}");
    };
    check(Grammar::Lark("start: start".to_owned()), "no text fits");
    check(Grammar::Lark("start: a\na: b\nb: a".to_owned()), "no text fits");
    check(Grammar::JsonSchema(json!({"$ref": "#"})), "no text fits");
    let rules = |count: usize| {
        let names: Vec<String> = (0..count).map(|rule| format!("a{rule}")).collect();
        let rules: Vec<String> =
            names.iter().map(|name| format!("{name}: \"{name}\" end")).collect();
        Grammar::Lark(format!("start: {}\nend: /[xy]/\n{}", names.join(" | "), rules.join("\n")))
    };
    assert!(compiler.compile(&rules(900)).is_ok());
    check(rules(70_000), "too large");
    check(Grammar::JsonSchema(json!({"enum": (0..100_000).collect::<Vec<u32>>()})), "too big");
}

#[test]
fn a_token_that_is_not_allowed_is_an_error() {
    let tokenizer = tokenizer();
    let grammar = Grammar::Choice(vec!["yes".to_owned()]);
    let mut matcher = compiler(&tokenizer).compile(&grammar).expect("a grammar");
    let wrong = tokenizer.encode("no", false).expect("tokens")[0];
    matcher.allowed().expect("a mask");
    assert!(matcher.accept(wrong).is_err());
}
