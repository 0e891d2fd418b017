//! Checkpoints that must be refused: cut short, lying, incomplete, or pointing elsewhere.

use std::fs;
use std::path::Path;

use models::{LoadOptions, ModelConfig, ModelError};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{ARCHITECTURES, fixture};

/// A copy of a fixture's checkpoint that a test may break.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

fn error(dir: &Path) -> ModelError {
    models::load(dir, &LoadOptions::default()).err().expect("the checkpoint is broken")
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Rewrites a file of tensors without one, or with one added.
fn edit_tensors(path: &Path, without: &str, added: Option<(&str, TensorView<'_>)>) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().filter(|(name, _)| name != without);
    let added = added.into_iter().map(|(name, view)| (name.to_owned(), view));
    let written = safetensors::serialize(tensors.chain(added), None).unwrap();
    fs::write(path, written).unwrap();
}

#[test]
fn both_forms_of_configuration_mean_the_same() {
    for name in ARCHITECTURES {
        let dir = copy(name);
        let new = ModelConfig::from_dir(dir.path()).unwrap();
        fs::rename(dir.path().join("config.v4.json"), dir.path().join("config.json")).unwrap();
        assert_eq!(ModelConfig::from_dir(dir.path()).unwrap(), new);
        let class = format!("{}forcausallm", name.trim_end_matches("_text").replace('_', ""));
        assert_eq!(new.architecture.to_string().to_lowercase(), class);
    }
    let llama = ModelConfig::from_dir(&fixture("llama")).unwrap();
    assert_eq!(llama.eos_token_ids, [2, 3]);
}

#[test]
fn files_cut_short_are_named() {
    for (name, file) in [
        ("qwen2", "model.safetensors"),
        ("llama", "model-00001-of-00004.safetensors"),
        ("llama", "model-00004-of-00004.safetensors"),
    ] {
        let dir = copy(name);
        let path = dir.path().join(file);
        let whole = fs::read(&path).unwrap();
        for length in [0, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = error(dir.path());
            assert!(matches!(&error, ModelError::WeightsFile { path, .. } if path.ends_with(file)));
        }
        let mut longer = whole.clone();
        longer.push(0);
        fs::write(&path, longer).unwrap();
        assert!(matches!(error(dir.path()), ModelError::WeightsFile { .. }));
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&path, lying).unwrap();
        assert!(matches!(error(dir.path()), ModelError::WeightsFile { .. }));
        fs::remove_file(&path).unwrap();
        assert!(matches!(error(dir.path()), ModelError::Read { .. }));
    }
}

#[test]
fn an_index_can_not_point_elsewhere() {
    for file in ["../model-00001-of-00004.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""]
    {
        let dir = copy("llama");
        edit_json(&dir.path().join("model.safetensors.index.json"), |index| {
            index["weight_map"]["lm_head.weight"] = json!(file);
        });
        let error = error(dir.path()).to_string();
        assert!(error.contains("plain file name") && error.contains("index.json"), "{error}");
    }
}

#[test]
fn an_index_must_tell_the_truth() {
    let dir = copy("llama");
    let index = dir.path().join("model.safetensors.index.json");
    edit_json(&index, |index| {
        let map = index["weight_map"].as_object_mut().unwrap();
        let other = map["model.layers.0.input_layernorm.weight"].clone();
        let head = map.values().find(|file| **file != other).unwrap().clone();
        map["model.layers.0.input_layernorm.weight"] = head;
    });
    let error = error(dir.path());
    assert!(matches!(
        error,
        ModelError::TensorMissing { name, .. } if name == "model.layers.0.input_layernorm.weight"
    ));
    let dir = copy("llama");
    let first = dir.path().join("model-00001-of-00004.safetensors");
    fs::copy(&first, dir.path().join("model-00002-of-00004.safetensors")).unwrap();
    let error = self::error(dir.path()).to_string();
    assert!(error.contains("in another shard too"), "{error}");
}

#[test]
fn tensors_that_are_missing_or_wrong_are_named() {
    const NORM: &str = "model.layers.1.post_attention_layernorm.weight";
    let dir = copy("qwen2");
    let path = dir.path().join("model.safetensors");
    edit_tensors(&path, NORM, None);
    assert!(matches!(error(dir.path()), ModelError::TensorMissing { name, .. } if name == NORM));

    let floats = [0_u8; 4 * 128];
    for (shape, length) in [(vec![128], 512), (vec![8, 8], 256), (vec![63], 252)] {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), &floats[..length]);
        edit_tensors(&path, NORM, Some((NORM, view.unwrap())));
        let error = error(dir.path());
        assert!(matches!(
            error,
            ModelError::TensorShape { name, found, .. } if name == NORM && found == shape
        ));
    }
    let view = TensorView::new(safetensors::Dtype::I32, vec![64], &floats[..256]).unwrap();
    edit_tensors(&path, NORM, Some((NORM, view)));
    assert!(matches!(error(dir.path()), ModelError::TensorDtype { name, .. } if name == NORM));
}

#[test]
fn tensors_without_a_place_are_refused() {
    let dir = copy("qwen2");
    let path = dir.path().join("model.safetensors");
    let floats = [0_u8; 256];
    let view = || TensorView::new(safetensors::Dtype::F32, vec![64], &floats).unwrap();
    let name = "model.layers.0.self_attn.o_proj.bias";
    edit_tensors(&path, "", Some((name, view())));
    let error = error(dir.path()).to_string();
    assert!(error.contains(name), "{error}");
    edit_tensors(&path, name, Some(("model.layers.0.self_attn.rotary_emb.inv_freq", view())));
    edit_tensors(&path, "", Some(("score.weight", view())));
    assert!(models::load(dir.path(), &LoadOptions::default()).is_ok());
}

#[test]
fn a_configuration_that_does_not_fit_the_weights_is_refused() {
    for (key, value, tensor) in [
        ("vocab_size", json!(321), "model.embed_tokens.weight"),
        ("num_hidden_layers", json!(4), "model.layers.3."),
        ("num_key_value_heads", json!(2), "k_proj"),
        ("intermediate_size", json!(1 << 20), "gate_proj"),
        ("tie_word_embeddings", json!(false), "lm_head.weight"),
    ] {
        let dir = copy("qwen2");
        edit_json(&dir.path().join("config.json"), |config| {
            config["layer_types"] = Value::Null;
            config[key] = value;
        });
        let error = error(dir.path()).to_string();
        assert!(error.contains(tensor), "{key}: {error}");
    }
}
