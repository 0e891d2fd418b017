//! Headers that lie are refused by what is wrong with them, and rows come back in order.

use super::*;

/// A file written field by field.
#[derive(Clone, Default)]
struct File(Vec<u8>);

impl File {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn string(self, value: &str) -> Self {
        let mut file = self.u64(value.len() as u64);
        file.0.extend(value.as_bytes());
        file
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.string(key).u32(8).string(value)
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }

    fn tensor(self, name: &str, shape: &[u64], type_id: u32, offset: u64) -> Self {
        let mut file = self.string(name).u32(shape.len() as u32);
        for size in shape.iter().rev() {
            file = file.u64(*size);
        }
        file.u32(type_id).u64(offset)
    }

    fn padded(mut self, data: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 7);
        self
    }
}

fn begin(tensors: u64, values: u64) -> File {
    File(b"GGUF".to_vec()).u32(3).u64(tensors).u64(values)
}

/// A llama of one tensor.
fn llama(type_id: u32, data: usize) -> File {
    let keys = ["embedding_length", "feed_forward_length", "block_count", "context_length"];
    let mut file = begin(1, 7).text("general.architecture", "llama");
    for key in keys {
        file = file.number(&format!("llama.{key}"), 8);
    }
    let file = file.number("llama.attention.head_count", 2);
    let file = file.string("tokenizer.ggml.tokens").u32(9).u32(8).u64(1).string("a");
    file.tensor("token_embd.weight", &[4, 8], type_id, 0).padded(data)
}

fn refused(file: &[u8]) -> String {
    match Gguf::read(file).and_then(|gguf| gguf.config().map(|_| gguf)) {
        Ok(gguf) => gguf.tensors().expect_err("must be refused"),
        Err(error) => error,
    }
}

#[test]
fn a_whole_file_is_understood() {
    let file = llama(0, 128).0;
    let gguf = Gguf::read(&file).unwrap();
    let config = gguf.config().unwrap();
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!((&config["vocab_size"], &config["hidden_size"]), (&json!(4), &json!(8)));
    assert_eq!(config["tie_word_embeddings"], true);
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
fn rows_come_back_in_the_order_of_transformers() {
    // Two heads of six rows, of one byte each; pairs (0, 3), (1, 4), (2, 5) lie side by side.
    let paired = [0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15];
    assert_eq!(unpaired(&paired, 1, 6), [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
    assert_eq!(unpaired(&[0, 0, 2, 2, 1, 1, 3, 3], 2, 4), [0, 0, 1, 1, 2, 2, 3, 3]);
}
