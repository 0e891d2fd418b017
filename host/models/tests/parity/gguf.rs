//! The same weights from a GGUF file and from safetensors give the same bits, adapters included: rows
//! that GGML turned about are put back, and blocks are those that rounding on load gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kernels::{WeightBytes, WeightFormat};
use models::{LoadOptions, Quantization};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::fixture;
use crate::runner::{Fixture, Plan, run};

/// A fixture's tensors as floats, rows first.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(dir: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_shard = path.file_name().unwrap().to_string_lossy().starts_with("model");
        if !is_shard || path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let format = match view.dtype() {
                Dtype::F32 => WeightFormat::F32,
                Dtype::F16 => WeightFormat::F16,
                Dtype::BF16 => WeightFormat::Bf16,
                other => panic!("{name} is {other:?}"),
            };
            let len = view.shape().iter().product();
            let floats = WeightBytes::new(view.data(), format, 1, len).unwrap().to_floats();
            tensors.insert(name, (view.shape().to_vec(), floats));
        }
    }
    tensors
}

fn of_file(name: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    names.iter().fold(name.to_owned(), |name, (ours, file)| name.replace(ours, file))
}

/// What GGML's converter does to a Llama's `q_proj` and `k_proj`.
fn paired(floats: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, half) = (floats.len() / rows, rows / heads / 2);
    let row = |index: usize| &floats[index * width..(index + 1) * width];
    let order = (0..heads).flat_map(|head| {
        (0..half).flat_map(move |i| [0, 1].map(|j| head * 2 * half + j * half + i))
    });
    order.flat_map(row).copied().collect()
}

struct Writer(Vec<u8>);

impl Writer {
    fn string(&mut self, text: &str) {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn value(&mut self, key: &str, value: &Value) {
        self.string(key);
        match value {
            Value::String(text) => {
                self.0.extend(8_u32.to_le_bytes());
                self.string(text);
            }
            Value::Number(number) if number.is_f64() => {
                self.0.extend(6_u32.to_le_bytes());
                self.0.extend((number.as_f64().unwrap() as f32).to_le_bytes());
            }
            value => {
                self.0.extend(4_u32.to_le_bytes());
                self.0.extend((value.as_u64().unwrap() as u32).to_le_bytes());
            }
        }
    }
}

/// Writes a fixture's weights, in f32, as its architecture's converter does.
fn write(architecture: &str, config: &Value, tensors: &Tensors, path: &Path) {
    let mut file = Writer(b"GGUF".to_vec());
    let key = |name: &str| format!("{architecture}.{name}");
    let values: Vec<(String, Value)> = vec![
        ("general.architecture".to_owned(), architecture.into()),
        (key("embedding_length"), config["hidden_size"].clone()),
        (key("feed_forward_length"), config["intermediate_size"].clone()),
        (key("block_count"), config["num_hidden_layers"].clone()),
        (key("context_length"), config["max_position_embeddings"].clone()),
        (key("attention.head_count"), config["num_attention_heads"].clone()),
        (key("attention.head_count_kv"), config["num_key_value_heads"].clone()),
        (key("attention.key_length"), config["head_dim"].clone()),
        (key("attention.layer_norm_rms_epsilon"), config["rms_norm_eps"].clone()),
        (key("rope.freq_base"), config["rope_parameters"]["rope_theta"].clone()),
        ("tokenizer.ggml.eos_token_id".to_owned(), json!(2)),
    ];
    // A width that follows from the others may be left out.
    let values: Vec<_> = values.into_iter().filter(|(_, value)| !value.is_null()).collect();
    file.0.extend(3_u32.to_le_bytes());
    file.0.extend((tensors.len() as u64).to_le_bytes());
    file.0.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|(key, value)| file.value(key, value));
    let mut data: Vec<u8> = Vec::new();
    for (name, (shape, floats)) in tensors {
        let heads = match name {
            _ if architecture != "llama" => None,
            _ if name.contains("q_proj") => config["num_attention_heads"].as_u64(),
            _ if name.contains("k_proj") => config["num_key_value_heads"].as_u64(),
            _ => None,
        };
        let floats = match heads {
            Some(heads) => paired(floats, shape[0], heads as usize),
            None => floats.clone(),
        };
        file.string(&of_file(name));
        file.0.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| file.0.extend((*size as u64).to_le_bytes()));
        file.0.extend(0_u32.to_le_bytes());
        file.0.extend((data.len() as u64).to_le_bytes());
        data.extend(floats.iter().flat_map(|v| v.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.0.resize(file.0.len().next_multiple_of(32), 0);
    file.0.extend(data);
    fs::write(path, file.0).unwrap();
}

/// The fixture without scaled frequencies, which a file has no keys for, in both forms.
fn check(name: &str, architecture: &str, options: &LoadOptions) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && entry.file_name() != "generation_config.json" {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let config_path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&config_path).unwrap()).unwrap();
    let theta = config["rope_parameters"]["rope_theta"].clone();
    config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": theta});
    config["eos_token_id"] = 2.into();
    fs::write(&config_path, config.to_string()).unwrap();
    let path = dir.path().join("model.gguf");
    write(architecture, &config, &tensors(dir.path()), &path);
    let plan = Plan { block_tokens: 16, chunks: vec![7], stagger: 1 };
    let outcome = |path: &Path| {
        let mut fixture = Fixture::load(name);
        fixture.model = models::load(path, options).unwrap();
        (fixture.model.config().clone(), run(&mut fixture, &[0, 1, 2, 3, 4], &plan).0)
    };
    let (from_file, from_dir) = (outcome(&path), outcome(dir.path()));
    assert_eq!(from_file.0.eos_token_ids, [2]);
    assert_eq!(from_file.1, from_dir.1, "{name}");
}

#[test]
fn a_file_gives_the_bits_of_a_directory() {
    check("llama", "llama", &LoadOptions::default());
    check("qwen2", "qwen2", &LoadOptions::default());
    check("qwen3", "qwen3", &LoadOptions::default());
    let quantization = Some(Quantization::Q4_0);
    check("llama", "llama", &LoadOptions { quantization, ..LoadOptions::default() });
}
