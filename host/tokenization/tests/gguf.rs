//! Tokenizers of GGUF files against Hugging Face's of the same vocabulary, and metadata that lies.
//!
//! Fixtures are written by `fixtures/gguf/make.py`.

use std::path::{Path, PathBuf};

use request::{Message, Role};
use serde_json::{Map, Value, json};
use tokenization::{ChatTemplate, Tokenizer};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn metadata(name: &str) -> Map<String, Value> {
    models::gguf_tokenizer(&path(&format!("{name}.gguf"))).expect("is a file")
}

#[test]
fn ids_and_texts_are_those_of_the_tokenizer_it_was_made_from() {
    for name in ["gpt2", "llama_bpe", "qwen2", "smollm", "spm"] {
        let tokenizer = Tokenizer::from_gguf(&path(name), &metadata(name)).expect("is read");
        let expected = std::fs::read_to_string(path(&format!("{name}.json"))).expect("is there");
        let cases: Vec<Value> = serde_json::from_str(&expected).expect("is JSON");
        assert!(cases.len() >= 10);
        for case in cases {
            let text = case["text"].as_str().expect("a text");
            let ids = tokenizer.encode(text, true).expect("encodes");
            assert_eq!(json!(ids), case["ids"], "{name}: {text:?}");
            let bare = tokenizer.encode(text, false).expect("encodes");
            assert_eq!(json!(bare), case["bare"], "{name}: {text:?}");
            let decoded = tokenizer.decode(&ids, true).expect("decodes");
            assert_eq!(json!(decoded), case["decoded"], "{name}: {text:?}");
        }
    }
}

#[test]
fn what_stands_for_nothing_is_no_token() {
    let tokenizer = Tokenizer::from_gguf(&path("gpt2"), &metadata("gpt2")).expect("is read");
    let tokens = metadata("gpt2")["tokenizer.ggml.tokens"].as_array().expect("a list").len();
    assert_eq!(tokenizer.vocab_size(), tokens - 2, "two are padding");
    assert_eq!(tokenizer.encode("[PAD1]", false).expect("encodes").len(), 6);
    assert!(tokenizer.is_special(tokenizer.encode("<|end|>", false).expect("encodes")[0]));
    assert!(!tokenizer.is_special(tokenizer.encode("<tool>", false).expect("encodes")[0]));
}

#[test]
fn templates_name_the_tokens_of_the_file() {
    let template = ChatTemplate::from_gguf(&path("qwen2"), &metadata("qwen2")).expect("is read");
    let message = Message::new(Role::User, "Hi");
    let text = template.expect("is there").render(&[message], true, Map::new());
    assert_eq!(text.expect("renders"), "<|begin|>Hi<|end|>");
    assert!(ChatTemplate::from_gguf(&path("spm"), &metadata("spm")).expect("is read").is_none());
}

fn refused(name: &str, change: impl FnOnce(&mut Map<String, Value>), expect: &str) {
    let mut metadata = metadata(name);
    change(&mut metadata);
    let error = Tokenizer::from_gguf(&path(name), &metadata).expect_err("must be refused");
    let error = error.to_string();
    assert!(error.contains(expect) && error.contains(name), "{error:?} should say {expect:?}");
}

#[test]
fn what_is_not_known_or_lies_is_refused_by_name() {
    let set = |key: &str, value: Value| {
        let key = format!("tokenizer.ggml.{key}");
        move |metadata: &mut Map<String, Value>| {
            metadata.insert(key, value);
        }
    };
    let drop = |key: &str| {
        let key = format!("tokenizer.ggml.{key}");
        move |metadata: &mut Map<String, Value>| {
            metadata.remove(&key).expect("was there");
        }
    };
    refused("gpt2", set("model", json!("t5")), "tokenizer.ggml.model is t5");
    refused("gpt2", drop("model"), "tokenizer.ggml.model is missing");
    refused("gpt2", set("model", json!(3)), "tokenizer.ggml.model is no text");
    refused("gpt2", set("pre", json!("tekken")), "tokenizer.ggml.pre is tekken; known are gpt-2");
    refused("gpt2", drop("tokens"), "tokenizer.ggml.tokens is missing");
    refused("gpt2", drop("merges"), "tokenizer.ggml.merges is missing");
    refused("gpt2", set("merges", json!(["q z nonsense"])), "");
    refused("gpt2", set("merges", json!(["<none> <such>"])), "");
    refused("gpt2", set("token_type", json!([1])), "tokenizer.ggml.token_type has 1 entries");
    refused("gpt2", set("tokens", json!(["a", 3])), "tokens is no list of texts");
    refused("llama_bpe", set("bos_token_id", json!(1_000_000)), "bos_token_id is no token");
    refused("spm", drop("bos_token_id"), "add_bos_token, but there is none");
    refused("spm", drop("scores"), "tokenizer.ggml.scores is missing");
    refused("spm", set("scores", json!([0.5])), "tokenizer.ggml.scores has 1 entries");
    let long = |metadata: &mut Map<String, Value>| {
        let tokens = metadata["tokenizer.ggml.tokens"].as_array_mut().expect("a list");
        *tokens.last_mut().expect("one") = "x".repeat(513).into();
    };
    refused("spm", long, "has 513 bytes; at most 512");
    let kinds = |metadata: &mut Map<String, Value>| {
        metadata["tokenizer.ggml.token_type"][0] = json!(7);
    };
    refused("spm", kinds, "token_type has 7");
}

#[test]
fn a_file_that_does_not_say_is_gpt_2_s() {
    let mut metadata = metadata("gpt2");
    metadata.remove("tokenizer.ggml.pre").expect("was there");
    let tokenizer = Tokenizer::from_gguf(&path("gpt2"), &metadata).expect("is read");
    let with = Tokenizer::from_gguf(&path("gpt2"), &self::metadata("gpt2")).expect("is read");
    assert_eq!(tokenizer.digest(), with.digest());
}
