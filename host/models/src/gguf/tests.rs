//! Headers that lie are refused by what is wrong with them, and rows come back in order.

use super::*;

#[path = "../../tests/parity/gguf_file.rs"]
mod gguf_file;

use gguf_file::{File, begin};

/// A llama of one tensor.
fn llama(type_id: u32, data: usize) -> File {
    let keys = ["embedding_length", "feed_forward_length", "block_count", "context_length"];
    let mut file = begin(1, 8).text("general.architecture", "llama");
    for key in keys {
        file = file.number(&format!("llama.{key}"), 8);
    }
    let file = file.number("llama.attention.head_count", 2);
    let file = file.float("llama.rope.freq_base", 5e5);
    let file = file.list("tokenizer.ggml.tokens", 8, 1).string("a");
    file.tensor("token_embd.weight", &[4, 8], type_id, 0).padded(data)
}

fn refused(file: &[u8]) -> String {
    match Gguf::read(file).and_then(|gguf| gguf.config(file).map(|_| gguf)) {
        Ok(gguf) => gguf.tensors().expect_err("must be refused"),
        Err(error) => error,
    }
}

#[test]
fn a_whole_file_is_understood() {
    let file = llama(0, 128).0;
    let gguf = Gguf::read(&file).unwrap();
    let config = gguf.config(&file).unwrap();
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!((&config["vocab_size"], &config["hidden_size"]), (&json!(4), &json!(8)));
    assert_eq!(
        (&config["tie_word_embeddings"], &config["rope_theta"]),
        (&json!(true), &json!(5e5))
    );
    let tensors = gguf.tensors().unwrap();
    assert_eq!(tensors[0].name, "model.embed_tokens.weight");
    assert_eq!(tensors[0].shape, [4, 8]);
    assert_eq!(tensors[0].bytes, file.len() - 128..file.len());
}

#[test]
fn files_cut_short_or_lying_are_refused() {
    let whole = llama(0, 128).0;
    for len in 0..whole.len() {
        refused(&whole[..len]);
    }
    let keys = |file: File| file.text("general.architecture", "llama");
    for (file, expect) in [
        (File(b"GGML".to_vec()), "begin with GGUF"),
        (File(b"GGUF".to_vec()).u32(1), "version 1"),
        (begin(0, u64::MAX), "left"),
        (begin(u64::MAX, 0), "left"),
        (begin(0, 0), "general.architecture is missing"),
        (begin(0, 1).text("general.architecture", "mamba"), "architecture mamba"),
        (begin(0, 2).text("a", "b").text("a", "c"), "a is there twice"),
        (begin(0, 1).string("a").u32(13), "type 13"),
        (begin(0, 1).string("a").u32(9).u32(9).u64(1), "array of type 9"),
        (begin(0, 1).string("a").u32(9).u32(10).u64(u64::MAX), "longer than any file"),
        (begin(0, 1).string("a").u32(9).u32(8).u64(u64::MAX), "left"),
        (begin(0, 1).u64(u64::MAX), "left"),
        (keys(begin(1, 1)).tensor("t", &[], 0, 0), "0 dimensions"),
        (keys(begin(1, 1)).tensor("t", &[u64::MAX, 2], 0, 0).padded(0), "within the file"),
        (keys(begin(1, 1)).tensor("t", &[1], 0, u64::MAX).padded(64), "within the file"),
        (keys(begin(2, 1)).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 0).padded(64), "twice"),
        (begin(0, 2).number("general.alignment", 0).text("b", "c"), "general.alignment"),
        (llama(0, 127), "within the file"),
        (llama(13, 128), "GGML's type 13"),
    ] {
        let error = refused(&file.0);
        assert!(error.contains(expect), "{error:?} should say {expect:?}");
    }
}

#[test]
fn arrays_of_the_tokenizer_are_kept() {
    let file = begin(0, 5).text("general.architecture", "llama").number("tokenizer.n", 7);
    let file = file.list("tokenizer.texts", 8, 2).string("a").string("ü");
    let file = file.list("tokenizer.floats", 6, 1).u32(0.5_f32.to_bits());
    let mut file = file.list("tokenizer.flags", 7, 2);
    file.0.extend([0, 1]);
    let found = tokenizer_metadata(&file.0).unwrap();
    let expected = json!({"tokenizer.n": 7, "tokenizer.texts": ["a", "ü"],
        "tokenizer.floats": [0.5], "tokenizer.flags": [false, true]});
    assert_eq!(serde_json::Value::Object(found), expected);
    for len in 0..file.0.len() {
        tokenizer_metadata(&file.0[..len]).expect_err("is cut short");
    }
    for (kind, len, expect) in [
        (8, 1 << 22, "left"),
        (8, (1 << 22) + 1, "at most"),
        (0, u64::MAX, "at most"),
        (9, 1, "array of type 9"),
        (13, 1, "type 13"),
    ] {
        let file = begin(0, 1).list("tokenizer.x", kind, len).u32(0);
        let error = tokenizer_metadata(&file.0).unwrap_err();
        assert!(error.contains(expect), "{error:?} should say {expect:?}");
    }
}

#[test]
fn factors_of_frequencies_are_read_from_their_tensor() {
    let check = |values: &[f32], type_id: u32| {
        let keys = ["embedding_length", "feed_forward_length", "block_count", "context_length"];
        let mut file = begin(2, 6).text("general.architecture", "llama");
        for key in keys {
            file = file.number(&format!("llama.{key}"), 8);
        }
        let file = file.number("llama.attention.head_count", 2);
        let file = file.tensor("token_embd.weight", &[4, 8], 0, 0);
        let shape = [values.len() as u64];
        let mut file = file.tensor("rope_freqs.weight", &shape, type_id, 128).padded(128);
        file.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let gguf = Gguf::read(&file.0)?;
        assert_eq!(gguf.tensors()?.len(), 1, "factors are no weight");
        gguf.config(&file.0)
    };
    let scaling = &check(&[1.0, 8.0], 0).unwrap()["rope_scaling"];
    assert_eq!(
        (&scaling["short_factor"], &scaling["long_factor"]),
        (&json!([1.0, 8.0]), &json!([1.0, 8.0]))
    );
    assert_eq!(scaling["attention_factor"], 1.0);
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(check(&[1.0, bad], 0).unwrap_err().contains("not above 0"));
    }
    assert!(check(&[1.0; 4], 1).unwrap_err().contains("no list of f32"));
}

#[test]
fn rows_come_back_in_the_order_of_transformers() {
    // Two heads of six rows, of one byte each; pairs (0, 3), (1, 4), (2, 5) lie side by side.
    let paired = [0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15];
    assert_eq!(unpaired(&paired, 1, 6), [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
    assert_eq!(unpaired(&[0, 0, 2, 2, 1, 1, 3, 3], 2, 4), [0, 0, 1, 1, 2, 2, 3, 3]);
}
