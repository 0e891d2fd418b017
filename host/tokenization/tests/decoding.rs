//! Tokenizers of the two families, built here: what comes out piece by piece is what comes out at
//! once.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenization::{IncrementalDecoder, Tokenizer};

/// GPT-2's character for each byte.
fn byte_characters() -> Vec<char> {
    let mut next = 0x100;
    let mut character = |byte: u8| {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        next += u32::from(!printable);
        char::from_u32(if printable { u32::from(byte) } else { next - 1 }).expect("a character")
    };
    (0..=255).map(&mut character).collect()
}

fn tokenizer(json: &Value) -> Arc<Tokenizer> {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).expect("written");
    Arc::new(Tokenizer::from_dir(dir.path()).expect("loads"))
}

fn special(id: u32) -> Value {
    json!([{"id": id, "content": "<|end|>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}])
}

/// All single bytes and one special token (id 256).
fn byte_level() -> Arc<Tokenizer> {
    let mut vocabulary: serde_json::Map<_, _> = byte_characters()
        .into_iter()
        .enumerate()
        .map(|(id, character)| (character.to_string(), json!(id)))
        .collect();
    vocabulary.insert("<|end|>".to_owned(), json!(256));
    tokenizer(&json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0}, "padding": null,
        "added_tokens": special(256), "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                          "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []},
    }))
}

/// Byte fallback, a few pieces with a leading space, and one special token (id 262).
fn sentencepiece() -> Arc<Tokenizer> {
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..256 {
        vocabulary.insert(format!("<0x{byte:02X}>"), json!(byte));
    }
    for (index, piece) in ["▁", "a", "▁a", "é", "▁b", "b", "<|end|>"].iter().enumerate() {
        vocabulary.insert((*piece).to_owned(), json!(256 + index));
    }
    tokenizer(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special(262),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": []},
    }))
}

fn by_pieces(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> String {
    let mut decoder = IncrementalDecoder::new(Arc::clone(tokenizer), true);
    let mut text: String = ids.iter().map(|id| decoder.push(*id).expect("decodes")).collect();
    text.push_str(&decoder.finish().expect("decodes"));
    text
}

proptest! {
    #[test]
    fn byte_level_pieces_make_the_whole(ids in prop::collection::vec(0u32..257, 0..40)) {
        let tokenizer = byte_level();
        let whole = tokenizer.decode(&ids, true).expect("decodes");
        prop_assert_eq!(by_pieces(&tokenizer, &ids), whole);
    }

    #[test]
    fn text_survives_its_tokens(text in "[ a-zé€😀\n]{0,24}") {
        let tokenizer = byte_level();
        let ids = tokenizer.encode(&text, false).expect("encodes");
        prop_assert_eq!(ids.len(), text.len(), "nothing is cut or padded");
        prop_assert_eq!(by_pieces(&tokenizer, &ids), text);
    }

    /// Whatever a model samples: every letter comes out, in order.
    #[test]
    fn any_tokens_lose_no_letter(ids in prop::collection::vec(0u32..263, 0..24)) {
        let tokenizer = sentencepiece();
        let letters = |text: &str| text.chars().filter(|c| "abé".contains(*c)).collect::<String>();
        let alone = ids.iter().filter(|id| (257..262).contains(*id));
        let expect: String = alone.map(|id| tokenizer.decode(&[*id], true).expect("decodes")).collect();
        let text = by_pieces(&tokenizer, &ids);
        let found = letters(&text);
        // Bytes may spell letters too, so those of the pieces are among what is found.
        let mut rest = found.chars();
        let kept = letters(&expect).chars().all(|wanted| rest.any(|letter| letter == wanted));
        prop_assert!(kept, "{:?} lost letters of {:?}", text, expect);
    }

    #[test]
    fn sentencepiece_pieces_make_the_whole(text in "[ abé€😀]{0,24}") {
        let tokenizer = sentencepiece();
        let ids = tokenizer.encode(&text, false).expect("encodes");
        let whole = tokenizer.decode(&ids, true).expect("decodes");
        prop_assert_eq!(by_pieces(&tokenizer, &ids), whole);
    }
}

#[test]
fn no_half_character_comes_out() {
    let tokenizer = byte_level();
    let mut decoder = IncrementalDecoder::new(Arc::clone(&tokenizer), true);
    let ids = tokenizer.encode("€!", false).expect("encodes");
    let pieces: Vec<_> = ids.iter().map(|id| decoder.push(*id).expect("decodes")).collect();
    assert_eq!(pieces, ["", "", "€", "!"]);
    decoder.push(0xe2).expect("decodes");
    assert_eq!(decoder.finish().expect("decodes"), "\u{fffd}");
}

#[test]
fn broken_bytes_lose_nothing_that_follows() {
    let tokenizer = sentencepiece();
    // A line feed, half a character, and letters.
    assert_eq!(by_pieces(&tokenizer, &[0x0a, 0xf0, 0x9f, 261, 257]), "\n\u{fffd}\u{fffd}ba");
    assert_eq!(by_pieces(&tokenizer, &[257, 0xf0, 261]), "a\u{fffd}b");
}

#[test]
fn bytes_of_single_tokens() {
    let bytes = byte_level();
    assert_eq!(bytes.token_bytes(0x20), Some(b" ".to_vec()));
    assert_eq!(bytes.token_bytes(0xe9), Some(vec![0xe9]));
    assert_eq!(bytes.token_bytes(256), Some(b"<|end|>".to_vec()));
    assert_eq!(bytes.token_bytes(257), None);
    assert!(bytes.is_special(256) && !bytes.is_special(32));
    let pieces = sentencepiece();
    assert_eq!(pieces.token_bytes(0x0a), Some(b"\n".to_vec()));
    assert_eq!(pieces.token_bytes(258), Some(b" a".to_vec()));
    assert_eq!(pieces.vocab_size(), 263);
}

#[test]
fn a_broken_file_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let error = Tokenizer::from_dir(dir.path()).expect_err("missing").to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    fs::write(dir.path().join("tokenizer.json"), "{\"version\": \"1.0\"").expect("written");
    let error = Tokenizer::from_dir(dir.path()).expect_err("cut short").to_string();
    assert!(error.contains("tokenizer.json") && error.contains("EOF"), "{error}");
}
