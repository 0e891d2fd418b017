//! Tokenizers that lie in the metadata of GGUF files: byte-level BPE (`gpt2`) and SentencePiece (`llama`),
//! put into the form of a `tokenizer.json`, so that all else is as with one.
//!
//! Reads no file: metadata comes as a map from keys to values. What it can't reproduce exactly, such as
//! a pre-tokenizer it does not know, it refuses by name.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

/// Longest token that is taken apart into the two that it was merged from. Real ones have some ten bytes.
const PIECE_BYTES_MAX: usize = 512;

/// GGML's kinds of tokens.
mod kind {
    pub(super) const NORMAL: u64 = 1;
    pub(super) const UNKNOWN: u64 = 2;
    pub(super) const CONTROL: u64 = 3;
    pub(super) const USER_DEFINED: u64 = 4;
    pub(super) const UNUSED: u64 = 5;
    pub(super) const BYTE: u64 = 6;
}

/// How texts are cut up before pairs are merged.
struct PreTokenizer {
    /// Names that llama.cpp has for it.
    names: &'static [&'static str],
    /// The words; `None` for GPT-2's own.
    pattern: Option<&'static str>,
    /// Whether each digit is a word.
    single_digits: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// Whether texts are composed first.
    composes: bool,
    /// Whether a text begins with the beginning's token where the file does not say.
    begins: bool,
}

const GPT_2: PreTokenizer = PreTokenizer {
    names: &["gpt-2", "gpt2", "default", "phi-2", "olmo", "jais", "mpt", "dbrx"],
    pattern: None,
    single_digits: false,
    ignore_merges: false,
    composes: false,
    begins: false,
};

const PRE_TOKENIZERS: [PreTokenizer; 4] = [
    GPT_2,
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        pattern: Some(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        ignore_merges: true,
        begins: true,
        ..GPT_2
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        pattern: Some(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composes: true,
        ..GPT_2
    },
    PreTokenizer { names: &["smollm", "starcoder"], single_digits: true, ..GPT_2 },
];

/// The `tokenizer.json` that says what `metadata` says.
///
/// # Errors
/// What is missing, of another type, or not known, by its key.
pub(crate) fn tokenizer_json(metadata: &Map<String, Value>) -> Result<Value, String> {
    let keys = Keys(metadata);
    let vocabulary = Vocabulary::read(keys)?;
    match keys.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level(keys, &vocabulary),
        Some("llama") => sentencepiece(keys, &vocabulary),
        Some(other) => Err(format!("tokenizer.ggml.model is {other}; gpt2 and llama are read")),
        None => {
            Err("tokenizer.ggml.model is missing, and no tokenizer.json lies beside".to_owned())
        }
    }
}

/// A template, and the special tokens that it may name.
type Template = (String, Map<String, Value>);

/// The chat template.
///
/// # Errors
/// A key of another type.
pub(crate) fn chat_template(metadata: &Map<String, Value>) -> Result<Option<Template>, String> {
    let keys = Keys(metadata);
    let Some(source) = keys.text("tokenizer.chat_template")? else { return Ok(None) };
    let tokens = keys.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let mut named = Map::new();
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ] {
        if let Some(id) = keys.integer(&format!("tokenizer.ggml.{key}"))? {
            let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
            let token = token.ok_or_else(|| format!("tokenizer.ggml.{key} is no token: {id}"))?;
            named.insert(name.to_owned(), (*token).into());
        }
    }
    Ok(Some((source.to_owned(), named)))
}

/// Values by key, each of the type that is asked for.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn get<T>(
        self,
        key: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| format!("{key} is no {what}"))
    }

    fn text(self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key, "text", Value::as_str)
    }

    fn texts(self, key: &str) -> Result<Option<Vec<&'a str>>, String> {
        self.get(key, "list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    fn boolean(self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, "boolean", Value::as_bool)
    }

    fn integer(self, key: &str) -> Result<Option<u64>, String> {
        self.get(key, "whole number", Value::as_u64)
    }
}

/// Tokens in the order of their ids, and GGML's kinds of them.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(keys: Keys<'a>) -> Result<Self, String> {
        let tokens = keys.texts("tokenizer.ggml.tokens")?;
        let tokens = tokens.ok_or("tokenizer.ggml.tokens is missing")?;
        const KINDS: &str = "tokenizer.ggml.token_type";
        let kinds = keys.get(KINDS, "list of whole numbers", |value| {
            value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>()
        })?;
        let kinds = kinds.unwrap_or_else(|| vec![kind::NORMAL; tokens.len()]);
        if kinds.len() != tokens.len() {
            let (found, expected) = (kinds.len(), tokens.len());
            return Err(format!("{KINDS} has {found} entries for {expected} tokens"));
        }
        if let Some(kind) = kinds.iter().find(|kind| !(1..=kind::BYTE).contains(*kind)) {
            return Err(format!("{KINDS} has {kind}, which is no kind of token"));
        }
        Ok(Self { tokens, kinds })
    }

    /// Tokens with their ids and kinds, without those that stand for nothing.
    fn used(&self) -> impl Iterator<Item = (&'a str, usize, u64)> {
        let all = self.tokens.iter().zip(&self.kinds).enumerate();
        all.map(|(id, (token, kind))| (*token, id, *kind)).filter(|used| used.2 != kind::UNUSED)
    }

    fn ids(&self) -> Value {
        let ids = self.used().map(|(token, id, _)| (token.to_owned(), id.into()));
        Value::Object(ids.collect())
    }

    /// Tokens that are found in a text before all else.
    fn added(&self) -> Value {
        let added = self.used().filter(|(_, _, kind)| {
            matches!(*kind, kind::UNKNOWN | kind::CONTROL | kind::USER_DEFINED)
        });
        let entry = |(token, id, kind)| {
            json!({"id": id, "content": token, "special": kind != kind::USER_DEFINED,
                "normalized": false, "single_word": false, "lstrip": false, "rstrip": false})
        };
        added.map(entry).collect()
    }

    fn token(&self, keys: Keys<'_>, name: &str) -> Result<Option<(&'a str, u64)>, String> {
        let key = format!("tokenizer.ggml.{name}");
        let Some(id) = keys.integer(&key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        let token = token.ok_or_else(|| format!("{key} is no token: {id}"))?;
        Ok(Some((token, id)))
    }

    /// What puts the tokens at the beginning and the end of every text.
    fn template(&self, keys: Keys<'_>, begins: bool) -> Result<Option<Value>, String> {
        let mut named = Map::new();
        let mut wanted = |name: &str, default: bool| {
            let flag = format!("tokenizer.ggml.add_{name}_token");
            if !keys.boolean(&flag)?.unwrap_or(default) {
                return Ok(None);
            }
            match self.token(keys, &format!("{name}_token_id"))? {
                Some((token, id)) => {
                    let entry = json!({"id": token, "ids": [id], "tokens": [token]});
                    named.insert(token.to_owned(), entry);
                    Ok(Some(token))
                }
                None if keys.0.contains_key(&flag) => Err(format!("{flag}, but there is none")),
                None => Ok(None),
            }
        };
        let (first, last) = (wanted("bos", begins)?, wanted("eos", false)?);
        let text = |sequence: &str, type_id: usize| {
            let special = |token| json!({"SpecialToken": {"id": token, "type_id": type_id}});
            let mut parts: Vec<Value> = first.map(special).into_iter().collect();
            parts.push(json!({"Sequence": {"id": sequence, "type_id": type_id}}));
            parts.extend(last.map(special));
            parts
        };
        let pair = [text("A", 0), text("B", 1)].concat();
        Ok((!named.is_empty()).then(|| {
            json!({"type": "TemplateProcessing", "single": text("A", 0), "pair": pair,
                "special_tokens": named})
        }))
    }
}

fn byte_level(keys: Keys<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, String> {
    let name = keys.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let known = PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name));
    let pre = known.ok_or_else(|| {
        let known = PRE_TOKENIZERS.map(|pre| pre.names[0]).join(", ");
        format!("tokenizer.ggml.pre is {name}; known are {known}; tokenizer.json may lie beside")
    })?;
    let merges = keys.texts("tokenizer.ggml.merges")?;
    let merges = merges.ok_or("tokenizer.ggml.merges is missing")?;
    let bytes = |splits: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": splits})
    };
    let mut steps = Vec::new();
    if pre.single_digits {
        steps.push(json!({"type": "Digits", "individual_digits": true}));
    }
    if let Some(pattern) = pre.pattern {
        steps.push(json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false}));
    }
    steps.push(bytes(pre.pattern.is_none()));
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": pre.composes.then(|| json!({"type": "NFC"})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": vocabulary.template(keys, pre.begins)?,
        "decoder": bytes(true),
        "model": {"type": "BPE", "vocab": vocabulary.ids(), "merges": merges,
            "ignore_merges": pre.ignore_merges, "byte_fallback": false, "fuse_unk": false},
    }))
}

fn sentencepiece(keys: Keys<'_>, vocabulary: &Vocabulary<'_>) -> Result<Value, String> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = keys.get(SCORES, "list of numbers", |value| {
        value.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()
    })?;
    let scores = scores.ok_or_else(|| format!("{SCORES} is missing"))?;
    if scores.len() != vocabulary.tokens.len() {
        let (found, expected) = (scores.len(), vocabulary.tokens.len());
        return Err(format!("{SCORES} has {found} entries for {expected} tokens"));
    }
    let prefix = keys.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let unspace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let mut normalizers = vec![space];
    let mut decoders = vec![unspace, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocabulary.used().find(|(_, _, kind)| *kind == kind::UNKNOWN);
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": vocabulary.template(keys, true)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "vocab": vocabulary.ids(),
            "merges": merges_by_score(vocabulary, &scores)?,
            "unk_token": unknown.map(|(token, _, _)| token),
            "ignore_merges": false, "byte_fallback": true, "fuse_unk": true},
    }))
}

/// SentencePiece merges the pair whose whole has the best score; as a list of pairs that is all pairs in
/// the order of scores, then, as transformers has it, of the longer left part, of the longer right part.
fn merges_by_score(
    vocabulary: &Vocabulary<'_>,
    scores: &[f64],
) -> Result<Vec<[String; 2]>, String> {
    let pieces: HashMap<&str, usize> = vocabulary
        .used()
        .filter(|(_, _, kind)| *kind == kind::NORMAL)
        .map(|(token, id, _)| (token, id))
        .collect();
    let mut merges = Vec::new();
    for (token, id, _) in vocabulary.used().filter(|(token, id, _)| pieces.get(token) == Some(id)) {
        if token.len() > PIECE_BYTES_MAX {
            let bytes = token.len();
            return Err(format!(
                "token {id} has {bytes} bytes; at most {PIECE_BYTES_MAX} are read"
            ));
        }
        if scores[id].is_nan() {
            return Err(format!("the score of token {id} is no number"));
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let parts = cuts.filter_map(|(left, right)| {
            Some(((*pieces.get(left)?, *pieces.get(right)?), left, right))
        });
        let mut parts: Vec<_> = parts.collect();
        parts.sort_by_key(|(ids, ..)| *ids);
        merges.extend(parts.into_iter().map(|(_, left, right)| (scores[id], left, right)));
    }
    let key = |(score, left, right): &(f64, &str, &str)| {
        (*score, left.chars().count(), right.chars().count())
    };
    merges.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2)))
    });
    let mut seen = HashSet::new();
    merges.retain(|(_, left, right)| seen.insert((*left, *right)));
    Ok(merges.into_iter().map(|(_, left, right)| [left.to_owned(), right.to_owned()]).collect())
}
