//! A GGUF file alone is a model: its answers are those of the directory that it was made from, through the
//! file's own tokenizer and chat template, with adapters and without. The file is the demo's model, written
//! here as GGML's converter would.

#[path = "../../host/models/tests/parity/gguf_file.rs"]
mod file;
#[path = "../../host/models/tests/parity/gguf_order.rs"]
mod order;

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, Setup, chat_body, content, heldout, root};
use file::{File, begin};

/// GGML's numbers for what a value is, and for how a tensor is kept.
const INT32: u32 = 5;
const BOOLEAN: u32 = 7;
const STRING: u32 = 8;
const BF16: u32 = 30;
/// GGML's kinds of tokens.
const NORMAL: u32 = 1;
const CONTROL: u32 = 3;

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// Name, shape and bytes of each tensor of a safetensors file.
fn tensors(path: &Path) -> Vec<(String, Vec<u64>, Vec<u8>)> {
    let bytes = std::fs::read(path).expect("weights");
    let (len, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: Value = serde_json::from_slice(header).expect("a header");
    let numbers = |value: &Value| -> Vec<u64> {
        value.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number")).collect()
    };
    let entries = header.as_object().expect("an object").iter();
    let entries = entries.filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            assert_eq!(entry["dtype"], "BF16", "{name}");
            let range = numbers(&entry["data_offsets"]);
            let bytes = data[range[0] as usize..range[1] as usize].to_vec();
            (name.clone(), numbers(&entry["shape"]), bytes)
        })
        .collect()
}

/// A tensor's bytes in the order of GGML's rows.
fn in_order(name: &str, rows: u64, bytes: Vec<u8>, config: &Value) -> Vec<u8> {
    let Some(heads) = order::heads_of(name, config) else { return bytes };
    let values: Vec<[u8; 2]> = bytes.chunks_exact(2).map(|two| [two[0], two[1]]).collect();
    order::paired(&values, rows as usize, heads).concat()
}

/// Adds the demo's tokenizer and chat template: nine values.
fn with_tokenizer(file: File, model: &Path, template: &str) -> File {
    let tokenizer = read_json(&model.join("tokenizer.json"));
    let added = tokenizer["added_tokens"].as_array().expect("a list");
    let vocabulary = tokenizer["model"]["vocab"].as_object().expect("an object");
    let mut tokens = vec![""; vocabulary.len()];
    for (token, id) in vocabulary {
        tokens[id.as_u64().expect("an id") as usize] = token;
    }
    let merges = tokenizer["model"]["merges"].as_array().expect("a list");
    let count = tokens.len() as u64;
    let file = file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
    let file = file.list("tokenizer.ggml.tokens", STRING, count);
    let file = tokens.iter().fold(file, |file, token| file.string(token));
    let file = file.list("tokenizer.ggml.token_type", INT32, count);
    let file = tokens.iter().fold(file, |file, token| {
        file.u32(if added.iter().any(|added| added["content"] == *token) {
            CONTROL
        } else {
            NORMAL
        })
    });
    let file = file.list("tokenizer.ggml.merges", STRING, merges.len() as u64);
    let file = merges.iter().fold(file, |file, pair| {
        let piece = |index: usize| pair[index].as_str().expect("a piece");
        file.string(&format!("{} {}", piece(0), piece(1)))
    });
    let file = file.number("tokenizer.ggml.bos_token_id", 1);
    let mut file = file.number("tokenizer.ggml.eos_token_id", 2);
    file = file.string("tokenizer.ggml.add_bos_token").u32(BOOLEAN);
    file.0.push(1);
    file.text("tokenizer.chat_template", template)
}

/// Writes the demo's model to `path` as one file, with this chat template.
fn write(template: &str, path: &Path) {
    let model = root().join("examples/tiny/model");
    let config = read_json(&model.join("config.json"));
    let mut tensors = tensors(&model.join("model.safetensors"));
    tensors.sort();
    let mut file = begin(tensors.len() as u64, 19).text("general.architecture", "llama");
    for (name, value) in order::values(&config) {
        let key = format!("llama.{name}");
        file = match value.as_u64() {
            Some(value) => file.number(&key, value as u32),
            None => file.float(&key, value.as_f64().expect("a number") as f32),
        };
    }
    file = with_tokenizer(file, &model, template);
    let mut data = Vec::new();
    for (name, shape, bytes) in tensors {
        file = file.tensor(&order::of_file(&name), &shape, BF16, data.len() as u64);
        data.extend(in_order(&name, shape[0], bytes, &config));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = file.padded(0);
    file.0.extend(data);
    std::fs::write(path, file.0).expect("written");
}

/// A server of that file alone, and the folder that it lies in.
fn alone(template: &str) -> (Server, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("folder");
    write(template, &data.path().join("model.gguf"));
    let path = data.path().to_owned();
    let setup = Setup { data: path, config: String::new(), plugins: false, adapters: None };
    (Server::start(&setup), data)
}

#[tokio::test]
async fn a_file_alone_answers_as_its_directory_does() {
    let template = root().join("examples/tiny/model/chat_template.jinja");
    let template = std::fs::read_to_string(template).expect("a template");
    let (file, _data) = alone(&template);
    let directory = Server::without_shipped_plugins("base_name = \"model\"\n");
    let (_, models) = file.get("/v1/models").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    assert_eq!(models["data"][0]["id"], "model", "called as its file is: {models}");
    for (model, domain) in [("model", "npc"), ("npc", "npc"), ("wallet-risk", "wallet-risk")] {
        let prompt = heldout(domain, 0);
        let mut body = chat_body(model, &prompt);
        body["logprobs"] = json!(true);
        let path = "/v1/chat/completions";
        let (status, answer) = file.post(path, body.clone()).await;
        assert_eq!(status, 200, "{answer}");
        let (_, expect) = directory.post(path, body.clone()).await;
        assert_eq!(answer["choices"], expect["choices"], "{model}: to the last bit");
        assert_eq!(answer["usage"]["prompt_tokens"], expect["usage"]["prompt_tokens"]);
        body["stream"] = json!(true);
        let events = file.stream(path, body).await.expect("a stream");
        let piece = |event: &String| {
            let event: Value = serde_json::from_str(event).ok()?;
            Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
        };
        let text: String = events.iter().filter_map(piece).collect();
        assert_eq!(text, content(&answer), "{model}");
    }
}

#[tokio::test]
async fn the_chat_template_is_the_file_s_own() {
    let (server, _data) = alone("{{ bos_token }}Q: {{ messages[0].content }}\nA:");
    let body = json!({"messages": [{"role": "user", "content": "Is it 12?"}]});
    let (status, tokens) = server.post("/tokenize", body).await;
    assert_eq!(status, 200, "{tokens}");
    let (_, text) = server.post("/detokenize", json!({"tokens": tokens["tokens"]})).await;
    assert_eq!(text["prompt"], "<|bos|>Q: Is it 12?\nA:", "{text}");
    let answer = server.chat("model", "Is it 12?").await;
    assert_eq!(answer["usage"]["prompt_tokens"], tokens["count"], "{answer}");
}
