//! A tokenizer of any size in which every word of lower-case letters is one token, and made texts
//! have as many tokens as they have words. Byte-level BPE, so that every other text encodes too.

use serde_json::{Map, Value, json};

use crate::BenchError;

/// Ids of special tokens, which are the first.
pub(super) const BOS: u32 = 1;
pub(super) const EOS: u32 = 2;
const SPECIAL: [&str; 6] =
    ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];
/// Written form of a space in GPT-2's alphabet.
const SPACE: char = '\u{120}';
const LETTERS: usize = 26;

/// Id of the first token that is a word: special tokens and single bytes are before it.
pub const FIRST_WORD: usize = SPECIAL.len() + 256;

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Letters of the word number `index`: a to z, aa to zz, aaa and so on. The token with id
/// [`FIRST_WORD`]` + index` is this word with a space before it.
#[must_use]
pub fn word(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % LETTERS) as u8));
        rest /= LETTERS;
    }
    letters.iter().rev().collect()
}

/// `tokenizer.json` with `vocab` tokens. Every word merges letter by letter from the left, so its
/// merge needs nothing but the word that is one letter shorter.
pub(super) fn tokenizer(vocab: usize) -> Result<Value, BenchError> {
    if vocab <= FIRST_WORD {
        let reason = format!("a vocabulary needs more than {FIRST_WORD} tokens, got {vocab}");
        return Err(BenchError::setting("shape", reason));
    }
    let mut ids = Map::new();
    let mut add = |token: String| {
        let id = ids.len();
        ids.insert(token, Value::from(id));
    };
    SPECIAL.iter().for_each(|token| add((*token).to_owned()));
    byte_alphabet().for_each(|character| add(character.to_string()));
    let mut merges = Vec::new();
    for index in 0..vocab - FIRST_WORD {
        let mut word = format!("{SPACE}{}", word(index));
        add(word.clone());
        let letter = word.pop().expect("a letter").to_string();
        merges.push(json!([word, letter]));
    }
    let added = |(id, content): (usize, &&str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(added).collect();
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": begins_with_bos(),
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": ids, "merges": merges,
        },
    }))
}

fn begins_with_bos() -> Value {
    let bos = SPECIAL[BOS as usize];
    let special = json!({"SpecialToken": {"id": bos, "type_id": 0}});
    let sequence = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let mut tokens = Map::new();
    tokens.insert(bos.to_owned(), json!({"id": bos, "ids": [BOS], "tokens": [bos]}));
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A", 0)],
        "pair": [special, sequence("A", 0), sequence("B", 1)],
        "special_tokens": tokens,
    })
}

/// `tokenizer_config.json`, with the chat template.
pub(super) fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BOS as usize],
        "eos_token": SPECIAL[EOS as usize],
        "pad_token": SPECIAL[0],
        "model_max_length": super::POSITIONS,
        "chat_template": TEMPLATE,
    })
}

/// GPT-2's character for each byte: printable Latin-1 stands for itself, every other byte for the
/// next character from U+0100 on.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let mut next = 0x100;
    (0..=u8::MAX).map(move |byte| {
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).expect("below U+0200")
    })
}
