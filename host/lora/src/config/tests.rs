//! Configurations as PEFT writes them, and such as must be refused.

use serde_json::json;

use super::*;
use crate::ModuleShape;

fn shape() -> ModelShape {
    let mut modules = Vec::new();
    for layer in 0..3 {
        for name in ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"] {
            modules.push((format!("model.layers.{layer}.{name}"), true));
        }
    }
    modules.push(("model.embed_tokens".to_owned(), false));
    modules.push(("lm_head".to_owned(), false));
    let modules = modules.into_iter().map(|(path, adaptable)| ModuleShape {
        path,
        in_features: 8,
        out_features: 8,
        adaptable,
        cuts: Vec::new(),
    });
    ModelShape { modules: modules.collect() }
}

/// Targets as `layer.name rank scale`, or the error.
fn targets(changes: &str) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let base = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none""#;
    std::fs::write(dir.path().join(CONFIG_FILE), format!("{base}, {changes}}}")).unwrap();
    let shape = shape();
    let targets = PeftConfig::from_dir(dir.path()).and_then(|config| config.targets(&shape));
    let targets = targets
        .map_err(|error| error.to_string().replace(&dir.path().display().to_string(), ""))?;
    Ok(targets
        .iter()
        .map(|target| {
            let path = shape.modules[target.module].path.replace("model.layers.", "");
            let path = path.replace("self_attn.", "").replace("mlp.", "").replace("_proj", "");
            format!("{path} {} {}", target.rank, target.scale)
        })
        .collect())
}

fn check(changes: &str, expect: &[&str]) {
    assert_eq!(targets(changes).as_deref(), Ok(expect.map_owned().as_slice()), "{changes}");
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for &[&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

fn check_refused(changes: &str, expect: &str) {
    let error = targets(changes).expect_err(changes);
    assert!(error.contains(expect), "{changes}: {error}");
}

#[test]
fn target_modules_in_all_forms() {
    check(r#""target_modules": ["q_proj"]"#, &["0.q 4 2", "1.q 4 2", "2.q 4 2"]);
    check(r#""target_modules": ["layers.1.mlp.down_proj"]"#, &["1.down 4 2"]);
    check(r#""target_modules": ["model.layers.2.self_attn.v_proj"]"#, &["2.v 4 2"]);
    check(r#""target_modules": ".*\\.(0|2)\\.self_attn\\.v_proj""#, &["0.v 4 2", "2.v 4 2"]);
    check(r#""target_modules": "(?!.*mlp).*\\.1\\..*""#, &["1.q 4 2", "1.v 4 2"]);
    check(
        r#""target_modules": "ALL-linear", "exclude_modules": ["q_proj", "v_proj"]"#,
        &["0.down 4 2", "1.down 4 2", "2.down 4 2"],
    );
    check(
        r#""target_modules": "all-linear", "exclude_modules": ".*(q|down)_proj""#,
        &["0.v 4 2", "1.v 4 2", "2.v 4 2"],
    );
    check_refused(r#""target_modules": "v_proj""#, "match no module");
    check_refused(r#""target_modules": ["proj"]"#, "match no module");
    check_refused(r#""target_modules": []"#, "target_modules");
    check_refused(r#""target_modules": null"#, "target_modules");
    check_refused(r#""target_modules": [1]"#, "target_modules");
    check_refused(r#""target_modules": "(q_proj""#, "target_modules");
    check_refused(r#""target_modules": "a)|(?:b""#, "target_modules");
    check_refused(r#""target_modules": ["q_proj", "lm_head"]"#, "unsupported target lm_head");
    check_refused(r#""target_modules": ["embed_tokens"]"#, "model.embed_tokens");
    check_refused(r#""target_modules": ".*""#, "unsupported target");
}

#[test]
fn layers_restrict_names_as_in_peft() {
    let names = r#""target_modules": ["q_proj"]"#;
    check(&format!(r#"{names}, "layers_to_transform": 1"#), &["1.q 4 2"]);
    check(&format!(r#"{names}, "layers_to_transform": [0, 2]"#), &["0.q 4 2", "2.q 4 2"]);
    check(
        &format!(r#"{names}, "layers_to_transform": [2], "layers_pattern": "layers""#),
        &["2.q 4 2"],
    );
    check_refused(
        &format!(r#"{names}, "layers_to_transform": [2], "layers_pattern": ["blocks"]"#),
        "match no module",
    );
    check_refused(&format!(r#"{names}, "layers_to_transform": ["a"]"#), "layers_to_transform");
    // A whole path is taken whatever the layers say.
    check(
        r#""target_modules": ["model.layers.0.mlp.down_proj"], "layers_to_transform": [1]"#,
        &["0.down 4 2"],
    );
}

#[test]
fn ranks_and_scales_follow_patterns() {
    let names = r#""target_modules": ["q_proj", "v_proj"]"#;
    check(
        &format!(r#"{names}, "layers_to_transform": 0, "use_rslora": true"#),
        &["0.q 4 4", "0.v 4 4"],
    );
    // The first pattern that matches counts, and it must match to the end.
    check(
        &format!(
            r#"{names}, "layers_to_transform": [0, 1],
               "rank_pattern": {{"1.self_attn.q_proj": 2, "q_proj": 16, "v": 32}},
               "alpha_pattern": {{"layers\\.0\\..*": 16}}"#
        ),
        &["0.q 16 1", "0.v 4 4", "1.q 2 4", "1.v 4 2"],
    );
    for rank in ["0", "-1", "1.5", "70000", "\"4\""] {
        check_refused(&format!(r#"{names}, "rank_pattern": {{"q_proj": {rank}}}"#), "rank_pattern");
    }
    check_refused(&format!(r#"{names}, "rank_pattern": {{"(": 4}}"#), "rank_pattern");
    check_refused(&format!(r#"{names}, "rank_pattern": []"#), "expected an object");
    check_refused(&format!(r#"{names}, "alpha_pattern": {{"q_proj": 1e60}}"#), "lora_alpha");
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("modules_to_save", json!(["lm_head"])),
        ("peft_type", json!("IA3")),
        ("peft_type", json!(null)),
        ("init_lora_weights", json!("pissa")),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["w"])),
        ("megatron_config", json!({"a": 1})),
        ("alora_invocation_tokens", json!([1, 2])),
        ("use_something_new", json!(true)),
    ] {
        let names = r#""target_modules": ["q_proj"]"#;
        check_refused(&format!(r#"{names}, "{key}": {value}"#), &format!("unsupported {key} = "));
    }
    let harmless = r#""use_dora": false, "modules_to_save": null, "lora_dropout": 0.1,
        "init_lora_weights": true, "task_type": "CAUSAL_LM", "revision": "main",
        "some_future_key": null, "layer_replication": null, "megatron_core": "megatron.core""#;
    check(&format!(r#""target_modules": ["layers.0.mlp.down_proj"], {harmless}"#), &["0.down 4 2"]);
}

#[test]
fn broken_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(PeftConfig::from_dir(dir.path()), Err(LoraError::Read { .. })));
    let path = dir.path().join(CONFIG_FILE);
    for text in ["", "{", "[]", r#"{"peft_type": "LORA""#] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(PeftConfig::from_dir(dir.path()), Err(LoraError::Parse { .. })), "{text}");
    }
    std::fs::write(&path, vec![b' '; CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert!(matches!(PeftConfig::from_dir(dir.path()), Err(LoraError::FileTooLarge { .. })));
}
