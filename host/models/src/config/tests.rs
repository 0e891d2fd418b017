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
    serde_json::from_value::<RawConfig>(keys).unwrap().resolve(None, None)
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
    for name in ["dynamic", "yarn", "su"] {
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
    assert_eq!((llama.kv_heads, llama.head_dim, llama.variation.qkv_bias), (6, 8, false));
    let llama = resolve(LLAMA, json!({"attention_bias": true, "mlp_bias": true})).unwrap();
    let biases = Variation { qkv_bias: true, output_bias: true, mlp_bias: true, ..none() };
    assert_eq!(llama.variation, biases);
    let mistral = resolve(MISTRAL, json!({"sliding_window": 7})).unwrap();
    assert_eq!(mistral.sliding_windows, [Some(7); 4]);
    let qwen2 = resolve(QWEN2, json!({"sliding_window": 7})).unwrap();
    assert_eq!(qwen2.sliding_windows, [None; 4]);
    assert_eq!(qwen2.variation, Variation { qkv_bias: true, ..none() });
    let windows = json!({"sliding_window": 7, "use_sliding_window": true, "max_window_layers": 3});
    let qwen2 = resolve(QWEN2, windows).unwrap();
    assert_eq!(qwen2.sliding_windows, [None, None, None, Some(7)]);
    let types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"];
    let windows = json!({"sliding_window": 7, "use_sliding_window": true, "layer_types": types});
    let qwen3 = resolve(QWEN3, windows).unwrap();
    assert_eq!(qwen3.sliding_windows, [Some(7), None, None, Some(7)]);
    assert_eq!(qwen3.variation, Variation { qk_norm: true, ..none() });
    assert_eq!(qwen3.head_dim, 128);
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

const PHI3: &str = "Phi3ForCausalLM";

fn none() -> Variation {
    Variation::default()
}

/// Phi-3's way to long contexts: heads of eight, all of which turn.
fn longrope(name: &str) -> Value {
    json!({"type": name, "short_factor": [1.0, 1, 2.0, 3.0], "long_factor": [1.0, 4.0, 8.0, 16.0]})
}

#[test]
fn phi3_has_fused_projections_and_parts_of_heads() {
    let keys = json!({"num_key_value_heads": null, "sliding_window": 9, "num_attention_heads": 3,
        "partial_rotary_factor": 0.75});
    let phi3 = resolve(PHI3, keys).unwrap();
    assert_eq!((phi3.kv_heads, phi3.head_dim, phi3.rms_norm_eps), (3, 16, 1e-5));
    assert_eq!((phi3.rope.head_dim, phi3.rope.rotary_dim), (16, 12));
    assert_eq!(phi3.sliding_windows, [Some(9); 4]);
    assert_eq!(phi3.variation, Variation { fused_projections: true, ..none() });
    let shape = phi3.model_shape();
    let paths: Vec<_> = shape.modules[..4].iter().map(|module| module.path.as_str()).collect();
    let expected = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"];
    assert_eq!(paths, expected.map(|name| format!("model.layers.0.{name}")));
    let sizes = |module: &ModuleShape| (module.in_features, module.out_features);
    assert_eq!(sizes(&shape.modules[0]), (48, 3 * 48));
    assert_eq!(sizes(&shape.modules[2]), (48, 192));
    for partial in [json!(0), json!(0.9), json!(1.5), json!(-1), json!("half")] {
        let keys = json!({"rope_scaling": {"partial_rotary_factor": partial}});
        check_refused(PHI3, keys, if partial.is_string() { "no" } else { "part of a head" });
    }
}

#[test]
fn longrope_has_the_factors_of_the_context() {
    let scaling = |name: &str, most: Option<usize>| {
        let keys = json!({
            "architectures": [PHI3], "vocab_size": 10, "hidden_size": 48, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 6, "max_position_embeddings": 128,
            "original_max_position_embeddings": 32, "rope_scaling": longrope(name),
        });
        let raw = serde_json::from_value::<RawConfig>(keys).unwrap();
        let config = raw.resolve(None, most.and_then(NonZeroUsize::new)).unwrap();
        let RopeScaling::Each { factors, attention_factor } = config.rope.scaling else {
            panic!("{name} is longrope");
        };
        let expected = (1.0 + 4.0_f32.ln() / 32.0_f32.ln()).sqrt();
        assert!((attention_factor - expected).abs() < 1e-6);
        (factors, config.max_position_embeddings)
    };
    let (short, long) = (vec![1.0, 1.0, 2.0, 3.0], vec![1.0, 4.0, 8.0, 16.0]);
    for name in ["longrope", "su", "yarn"] {
        assert_eq!(scaling(name, None), (long.clone(), 128));
        assert_eq!(scaling(name, Some(1000)), (long.clone(), 128));
        assert_eq!(scaling(name, Some(33)), (long.clone(), 33));
        assert_eq!(scaling(name, Some(32)), (short.clone(), 32));
        assert_eq!(scaling(name, Some(1)), (short.clone(), 1));
    }
    let llama = resolve(LLAMA, json!({"rope_scaling": longrope("longrope")})).unwrap();
    let expected = RopeScaling::Each { factors: short, attention_factor: 1.0 };
    assert_eq!(llama.rope.scaling, expected, "the original context is the model's own");
    for (key, value, expect) in [
        ("short_factor", json!([1.0]), "1 factors for 4 frequencies"),
        ("short_factor", json!([1.0, 0.0, 1.0, 1.0]), "short_factor has 0.0"),
        ("long_factor", json!([1.0, 2.0, 3.0, "a"]), "long_factor has"),
        ("long_factor", Value::Null, "long_factor is missing"),
        ("attention_factor", json!(-1), "attention_factor"),
        ("original_max_position_embeddings", json!(0), "original_max_position_embeddings"),
        ("original_max_position_embeddings", json!(1), "attention_factor"),
    ] {
        let mut keys = longrope("longrope");
        keys[key] = value;
        check_refused(LLAMA, json!({"rope_scaling": keys}), expect);
    }
}

const QWEN3_MOE: &str = "Qwen3MoeForCausalLM";

/// Keys of a mixture of experts, with some changed.
fn experts(changes: Value) -> Value {
    let mut keys = json!({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 12});
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys
}

#[test]
fn qwen3_moe_has_experts_in_some_layers() {
    let config = resolve(QWEN3_MOE, experts(json!({}))).unwrap();
    assert_eq!((config.head_dim, config.variation.qk_norm), (8, true));
    let expected = Experts {
        count: 8,
        per_token: 2,
        intermediate_size: 12,
        normalised: false,
        layers: vec![true; 4],
    };
    assert_eq!(config.experts, Some(expected));
    for (changes, expected) in [
        (json!({"decoder_sparse_step": 2}), [false, true, false, true]),
        (json!({"mlp_only_layers": [0, 3]}), [false, true, true, false]),
        (json!({"mlp_only_layers": [1], "decoder_sparse_step": 2}), [false, false, false, true]),
        (json!({"decoder_sparse_step": 5}), [false; 4]),
    ] {
        let config = resolve(QWEN3_MOE, experts(changes)).unwrap();
        assert_eq!(config.experts.unwrap().layers, expected);
    }
    let renamed = json!({"num_experts": null, "num_local_experts": 3, "norm_topk_prob": true});
    let config = resolve(QWEN3_MOE, experts(renamed)).unwrap();
    assert_eq!(config.experts.map(|e| (e.count, e.normalised)), Some((3, true)));
    let window = json!({"sliding_window": 7, "use_sliding_window": true, "max_window_layers": 4});
    let config = resolve(QWEN3_MOE, experts(window)).unwrap();
    assert_eq!(config.sliding_windows, [Some(7); 4]);
    for (key, value, expect) in [
        ("num_experts", Value::Null, "num_experts: the key is missing"),
        ("num_experts", json!(0), "num_experts"),
        ("num_experts", json!(1), "2 of 1 experts"),
        ("num_experts", json!(1 << 21), "num_experts"),
        ("num_experts_per_tok", Value::Null, "num_experts_per_tok"),
        ("num_experts_per_tok", json!(0), "0 of 8 experts"),
        ("num_experts_per_tok", json!(9), "9 of 8 experts"),
        ("moe_intermediate_size", Value::Null, "moe_intermediate_size"),
        ("moe_intermediate_size", json!(0), "moe_intermediate_size"),
        ("decoder_sparse_step", json!(0), "decoder_sparse_step"),
    ] {
        check_refused(QWEN3_MOE, experts(json!({key: value})), expect);
    }
    assert!(resolve(QWEN3_MOE, experts(json!({"num_experts_per_tok": 8}))).is_ok());
}

#[test]
fn adapters_may_name_no_expert() {
    let config = resolve(QWEN3_MOE, experts(json!({"mlp_only_layers": [1]}))).unwrap();
    let shape = config.model_shape();
    assert_eq!(shape.modules.len(), 3 * 5 + 7 + 2);
    let router = &shape.modules[shape.index_of("model.layers.0.mlp.gate").unwrap()];
    assert!(!router.adaptable);
    assert!(shape.index_of("model.layers.1.mlp.gate_proj").is_some());
    assert!(shape.modules.iter().all(|module| !module.path.contains("experts")));
}

const GEMMA2: &str = "Gemma2ForCausalLM";
const GEMMA3: &str = "Gemma3ForCausalLM";

/// Keys that every Gemma has, with some changed.
fn gemma(changes: Value) -> Value {
    let mut keys = json!({"hidden_act": null, "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 9, "rope_theta": null});
    for (key, value) in changes.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys
}

/// What the second and the third generation share.
fn gemmas() -> Variation {
    Variation {
        activation: Activation::GeluTanh,
        unit_offset_norms: true,
        output_norms: true,
        scaled_embedding: true,
        attention_scale: Some(1.0 / 16.0),
        ..none()
    }
}

#[test]
fn gemma2_has_soft_limits_and_a_window_in_every_second_layer() {
    let config = resolve(GEMMA2, gemma(json!({}))).unwrap();
    assert_eq!((config.head_dim, config.tie_word_embeddings), (256, true));
    assert_eq!((config.rope.theta, &config.local_rope), (10_000.0, &None));
    assert_eq!(config.sliding_windows, [Some(9), None, Some(9), None]);
    let limits = (Some(50.0), Some(30.0));
    let (attention_softcap, logits_softcap) = limits;
    assert_eq!(config.variation, Variation { attention_softcap, logits_softcap, ..gemmas() });
    let changed = json!({"attn_logit_softcapping": 7, "query_pre_attn_scalar": 64,
        "attention_bias": true, "tie_word_embeddings": false, "hidden_act": "gelu"});
    let config = resolve(GEMMA2, gemma(changed)).unwrap();
    assert_eq!(config.variation.attention_softcap, Some(7.0));
    assert_eq!(config.variation.attention_scale, Some(0.125));
    assert!(config.variation.qkv_bias && config.variation.output_bias);
    assert!(!config.variation.mlp_bias && !config.tie_word_embeddings);
    let types = ["full_attention", "full_attention", "sliding_attention", "full_attention"];
    let config = resolve(GEMMA2, gemma(json!({"layer_types": types}))).unwrap();
    assert_eq!(config.sliding_windows, [None, None, Some(9), None]);
    for (key, value, expect) in [
        ("hidden_activation", json!("gelu"), "hidden_activation"),
        ("query_pre_attn_scalar", json!(0), "query_pre_attn_scalar"),
        ("attn_logit_softcapping", json!(0), "attn_logit_softcapping"),
        ("final_logit_softcapping", json!(-1), "final_logit_softcapping"),
        ("sliding_window", Value::Null, "sliding_window"),
        ("use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("num_key_value_heads", Value::Null, "num_key_value_heads"),
    ] {
        check_refused(GEMMA2, gemma(json!({key: value})), expect);
    }
}

#[test]
fn a_soft_limit_of_null_is_none() {
    let keys = r#"{"architectures": ["Gemma2ForCausalLM"], "vocab_size": 10, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 8, "sliding_window": 4,
        "attn_logit_softcapping": null, "final_logit_softcapping": null}"#;
    let raw: RawConfig = serde_json::from_str(keys).unwrap();
    assert_eq!(raw.resolve(None, None).unwrap().variation, gemmas());
}

#[test]
fn gemma3_has_two_ropes() {
    let old = json!({"rope_theta": 5e5, "rope_local_base_freq": 2e4, "sliding_window_pattern": 3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let old = resolve(GEMMA3, gemma(old)).unwrap();
    assert_eq!(old.sliding_windows, [Some(9), Some(9), None, Some(9)]);
    assert_eq!(old.variation, Variation { qk_norm: true, ..gemmas() });
    assert_eq!((old.rope.theta, &old.rope.scaling), (5e5, &RopeScaling::Linear { factor: 8.0 }));
    let local = old.local_rope.as_ref().map(|rope| (rope.theta, &rope.scaling));
    assert_eq!(local, Some((2e4, &RopeScaling::None)));
    let new = json!({"sliding_window_pattern": 3, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}});
    assert_eq!(resolve(GEMMA3, gemma(new)).unwrap(), old);
    let plain = resolve(GEMMA3, gemma(json!({"final_logit_softcapping": 5}))).unwrap();
    assert_eq!(plain.variation.logits_softcap, Some(5.0));
    assert_eq!(plain.sliding_windows, [Some(9); 4], "the sixth layer would be the first without");
    assert_eq!((plain.rope.theta, plain.local_rope.map(|rope| rope.theta)), (1e6, Some(1e4)));
    for (key, value, expect) in [
        ("attn_logit_softcapping", json!(50), "attn_logit_softcapping"),
        ("sliding_window_pattern", json!(0), "sliding_window_pattern"),
        ("rope_parameters", json!({"rope_type": "default"}), "each type of layer"),
        ("rope_parameters", json!({"full_attention": {"rope_type": "yarn"}}), "yarn"),
        ("rope_parameters", json!({"sliding_attention": 3}), "not an object"),
    ] {
        check_refused(GEMMA3, gemma(json!({key: value})), expect);
    }
}
