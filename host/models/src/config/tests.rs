//! Configurations of both generations of transformers, and such as must be refused.

use kernels::RopeScaling;
use serde_json::{Value, json};

use super::*;

/// Resolves a small configuration with some keys changed; `null` takes a key away.
fn resolve(class: &str, changes: Value) -> Result<ModelConfig, ModelError> {
    let mut keys = json!({
        "architectures": [class],
        "vocab_size": 100,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "hidden_act": "silu",
        "rope_theta": 5000.0,
    });
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    serde_json::from_value::<RawConfig>(keys).unwrap().resolve(None)
}

fn check_refused(class: &str, changes: Value, expect: &str) {
    let error = resolve(class, changes.clone()).unwrap_err().to_string();
    assert!(error.contains(expect), "{changes}: {error}");
}

const LLAMA: &str = "LlamaForCausalLM";
const MISTRAL: &str = "MistralForCausalLM";
const QWEN2: &str = "Qwen2ForCausalLM";
const QWEN3: &str = "Qwen3ForCausalLM";

#[test]
fn rope_of_both_generations_is_the_same() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let old = resolve(LLAMA, json!({"rope_scaling": llama3})).unwrap();
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(5000.0);
    let new = resolve(LLAMA, json!({"rope_theta": null, "rope_parameters": parameters})).unwrap();
    assert_eq!(old, new);
    assert_eq!(old.rope.theta, 5000.0);
    assert!(matches!(old.rope.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    let plain = resolve(LLAMA, json!({"rope_parameters": {"rope_type": "default"}})).unwrap();
    assert_eq!((plain.rope.theta, plain.rope.scaling), (5000.0, RopeScaling::None));
    let linear = resolve(LLAMA, json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    let theta = resolve(LLAMA, json!({"rope_theta": null})).unwrap().rope.theta;
    assert_eq!(theta, 10_000.0);
}

#[test]
fn ropes_that_are_not_implemented_are_refused_by_name() {
    for name in ["dynamic", "yarn", "longrope", "su"] {
        check_refused(LLAMA, json!({"rope_scaling": {"rope_type": name, "factor": 2.0}}), name);
    }
    check_refused(LLAMA, json!({"rope_scaling": {"type": "linear"}}), "factor is missing");
    check_refused(LLAMA, json!({"rope_scaling": {"type": "linear", "factor": 0}}), "factor");
    check_refused(LLAMA, json!({"rope_scaling": {"type": 3}}), "rope_type");
    check_refused(LLAMA, json!({"rope_scaling": "linear"}), "rope_scaling");
    check_refused(LLAMA, json!({"rope_theta": 0.0}), "rope_theta");
    check_refused(LLAMA, json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor");
    // Parameters per type of layer, as models with two kinds of rope have them.
    let nested = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}});
    check_refused(LLAMA, json!({"rope_parameters": nested}), "full_attention");
}

#[test]
fn architectures_differ_where_they_should() {
    let llama = resolve(LLAMA, json!({"num_key_value_heads": null})).unwrap();
    assert_eq!((llama.kv_heads, llama.head_dim, llama.qkv_bias), (6, 8, false));
    let llama = resolve(LLAMA, json!({"attention_bias": true, "mlp_bias": true})).unwrap();
    assert!(llama.qkv_bias && llama.output_bias && llama.mlp_bias && !llama.qk_norm);
    let mistral = resolve(MISTRAL, json!({"sliding_window": 7})).unwrap();
    assert_eq!(mistral.sliding_windows, [Some(7); 4]);
    let qwen2 = resolve(QWEN2, json!({"sliding_window": 7})).unwrap();
    assert_eq!(qwen2.sliding_windows, [None; 4]);
    assert!(qwen2.qkv_bias && !qwen2.output_bias);
    let windows = json!({"sliding_window": 7, "use_sliding_window": true, "max_window_layers": 3});
    let qwen2 = resolve(QWEN2, windows).unwrap();
    assert_eq!(qwen2.sliding_windows, [None, None, None, Some(7)]);
    let types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"];
    let windows = json!({"sliding_window": 7, "use_sliding_window": true, "layer_types": types});
    let qwen3 = resolve(QWEN3, windows).unwrap();
    assert_eq!(qwen3.sliding_windows, [Some(7), None, None, Some(7)]);
    assert!(qwen3.qk_norm && qwen3.head_dim == 128);
    check_refused(QWEN3, json!({"layer_types": ["full_attention"]}), "layer_types");
    check_refused(QWEN3, json!({"layer_types": ["a", "a", "a", "a"]}), "layer_types");
    check_refused(MISTRAL, json!({"num_key_value_heads": null}), "num_key_value_heads");
}

#[test]
fn what_is_not_implemented_or_makes_no_sense_is_refused() {
    check_refused("GemmaForCausalLM", json!({}), "GemmaForCausalLM");
    check_refused(LLAMA, json!({"architectures": []}), "architectures");
    check_refused(LLAMA, json!({"hidden_act": "gelu"}), "gelu");
    check_refused(LLAMA, json!({"quantization_config": {"quant_method": "awq"}}), "awq");
    check_refused(LLAMA, json!({"num_key_value_heads": 4}), "num_key_value_heads");
    check_refused(LLAMA, json!({"num_key_value_heads": 0}), "num_key_value_heads");
    check_refused(
        LLAMA,
        json!({"num_attention_heads": 5, "num_key_value_heads": 5}),
        "hidden_size",
    );
    check_refused(LLAMA, json!({"head_dim": 7}), "head_dim");
    check_refused(MISTRAL, json!({"sliding_window": 0}), "sliding_window");
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"] {
        check_refused(LLAMA, json!({key: 0}), key);
        check_refused(LLAMA, json!({key: 1_u64 << 40}), key);
    }
    check_refused(LLAMA, json!({"num_hidden_layers": 1025}), "num_hidden_layers");
    check_refused(LLAMA, json!({"max_position_embeddings": 1_u64 << 32}), "max_position");
}

#[test]
fn the_generation_config_decides_what_ends_a_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": [LLAMA], "vocab_size": 10, "hidden_size": 4, "intermediate_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
        "eos_token_id": 2, "bos_token_id": 1, "tie_word_embeddings": true,
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let ids = || {
        let config = ModelConfig::from_dir(dir.path()).unwrap();
        (config.eos_token_ids, config.bos_token_id)
    };
    assert_eq!(ids(), (vec![2], Some(1)));
    let generation = dir.path().join("generation_config.json");
    std::fs::write(&generation, json!({"eos_token_id": [3, 4]}).to_string()).unwrap();
    assert_eq!(ids(), (vec![3, 4], Some(1)));
    std::fs::write(&generation, "{").unwrap();
    assert!(matches!(ModelConfig::from_dir(dir.path()), Err(ModelError::Parse { .. })));
}

#[test]
fn the_shape_names_every_module_once() {
    let config = resolve(QWEN3, json!({"head_dim": 16})).unwrap();
    let shape = config.model_shape();
    assert_eq!(shape.modules.len(), 4 * 7 + 2);
    let at = |path: &str| {
        let module = &shape.modules[shape.index_of(path).unwrap()];
        (module.in_features, module.out_features, module.adaptable)
    };
    assert_eq!(at("model.layers.3.self_attn.q_proj"), (48, 96, true));
    assert_eq!(at("model.layers.0.self_attn.v_proj"), (48, 32, true));
    assert_eq!(at("model.layers.1.self_attn.o_proj"), (96, 48, true));
    assert_eq!(at("model.layers.2.mlp.down_proj"), (96, 48, true));
    assert_eq!(at("lm_head"), (48, 100, false));
}
