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
use crate::gguf_file::begin;
use crate::gguf_order::{heads_of, of_file, paired, values};
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

/// Writes a fixture's weights, in f32, as its architecture's converter does; `frequencies` divide those of
/// the rotary embedding.
fn write(
    architecture: &str,
    config: &Value,
    (tensors, frequencies): (&Tensors, Option<&[f32]>),
    path: &Path,
) {
    let key = |name: &str| format!("{architecture}.{name}");
    let values = values(config);
    let mut tensors = tensors.clone();
    if let Some(frequencies) = frequencies {
        let name = "rope_freqs.weight".to_owned();
        tensors.insert(name, (vec![frequencies.len()], frequencies.to_vec()));
    }
    let file = begin(tensors.len() as u64, values.len() as u64 + 3);
    let file = file.text("general.architecture", architecture);
    let mut file = file.number("tokenizer.ggml.eos_token_id", 2);
    file = file.list("tokenizer.ggml.tokens", 8, 2).string("a").string("b");
    for (name, value) in values {
        file = match value.as_u64() {
            Some(value) => file.number(&key(name), value as u32),
            None => file.float(&key(name), value.as_f64().unwrap() as f32),
        };
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, (shape, floats)) in &tensors {
        let heads = (architecture == "llama").then(|| heads_of(name, config)).flatten();
        let floats = match heads {
            Some(heads) => paired(floats, shape[0], heads),
            None => floats.clone(),
        };
        let sizes: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        file = file.tensor(&of_file(name), &sizes, 0, data.len() as u64);
        data.extend(floats.iter().flat_map(|v| v.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = file.padded(0);
    file.0.extend(data);
    fs::write(path, file.0).unwrap();
}

/// The fixture in both forms. Its own scaled frequencies have no keys in a file: either none are
/// scaled, or each is divided by a factor.
fn check(name: &str, architecture: &str, options: &LoadOptions, frequencies: bool) {
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
    let half = config["head_dim"].as_u64().unwrap_or(0) as usize / 2;
    let factors: Vec<f32> = (0..half).map(|i| 1.0 + i as f32 * 0.75).collect();
    if frequencies {
        assert!(half > 0, "the fixture says how wide a head is");
        config["rope_parameters"] = json!({"rope_type": "longrope", "rope_theta": theta,
            "short_factor": factors, "long_factor": factors, "attention_factor": 1.0});
    }
    fs::write(&config_path, config.to_string()).unwrap();
    let path = dir.path().join("model.gguf");
    let factors = frequencies.then_some(factors.as_slice());
    write(architecture, &config, (&tensors(dir.path()), factors), &path);
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
    let exact = LoadOptions::default();
    check("llama", "llama", &exact, false);
    check("llama", "llama", &exact, true);
    check("qwen2", "qwen2", &exact, false);
    check("qwen3", "qwen3", &exact, false);
    let quantization = Some(Quantization::Q4_0);
    check("llama", "llama", &LoadOptions { quantization, ..exact }, false);
}
