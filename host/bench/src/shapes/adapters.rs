//! PEFT directories: LoRA adapters of one rank, each with content of its own.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::draw::{Dtype, Fill};
use super::model::write_json;
use super::tensors::{Tensor, write_file};
use super::{Shape, TARGETS};
use crate::BenchError;

/// How much of a layer's output an adapter changes: enough for another answer, too little to drown
/// the base.
const EFFECT: f32 = 0.1;

/// Which adapters to make.
#[derive(Clone, Debug)]
pub struct AdapterPlan {
    /// How many.
    pub count: usize,
    /// Rank of each; `lora_alpha` is twice that.
    pub rank: usize,
    /// Modules that they adapt, of [`TARGETS`].
    pub targets: Vec<String>,
    /// How they are stored.
    pub dtype: Dtype,
    /// Decides their content, with each one's number.
    pub seed: u64,
}

/// Name of the adapter number `index`, and of its directory.
#[must_use]
pub fn adapter_name(index: usize) -> String {
    format!("adapter-{index:05}")
}

/// Makes adapters for models of `shape` in directories `adapter-00000` and on below `dir`. They are
/// real files, not links; their tensors and configurations differ in content alone.
///
/// # Errors
/// A target that is no module, a rank that a module has no room for, or a file that can't be
/// written.
pub fn make_adapters(shape: &Shape, dir: &Path, plan: &AdapterPlan) -> Result<(), BenchError> {
    let tensors = tensors(shape, plan)?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "r": plan.rank,
        "lora_alpha": 2 * plan.rank,
        "lora_dropout": 0.0,
        "target_modules": plan.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
        "inference_mode": true,
    });
    for index in 0..plan.count {
        let folder = dir.join(adapter_name(index));
        fs::create_dir_all(&folder).map_err(BenchError::io("create", &folder))?;
        write_json(&folder.join("adapter_config.json"), &config)?;
        // Neighbouring seeds must not share adapters, whatever the number of each.
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
        write_file(&folder.join("adapter_model.safetensors"), &tensors, plan.dtype, seed)?;
    }
    Ok(())
}

/// A and B of every adapted module.
fn tensors(shape: &Shape, plan: &AdapterPlan) -> Result<Vec<Tensor>, BenchError> {
    if plan.targets.is_empty() {
        return Err(BenchError::setting("targets", "none are given"));
    }
    let mut targets = plan.targets.iter();
    if let Some(twice) =
        targets.find(|target| plan.targets.iter().filter(|t| t == target).count() > 1)
    {
        return Err(BenchError::setting("targets", format!("{twice:?} is given twice")));
    }
    let mut tensors = Vec::new();
    for layer in 0..shape.layers {
        for target in &plan.targets {
            let module = shape.module(target).ok_or_else(|| {
                let known = TARGETS.join(", ");
                BenchError::setting("targets", format!("{target:?} is none of {known}"))
            })?;
            let rank = plan.rank;
            if rank == 0 || rank > module.inputs.min(module.outputs) {
                let (inputs, outputs) = (module.inputs, module.outputs);
                let reason = format!("{rank} does not fit {target} of {outputs} x {inputs}");
                return Err(BenchError::setting("rank", reason));
            }
            let name = format!("base_model.model.model.layers.{layer}.{}.{target}", module.block);
            tensors.push(Tensor {
                name: format!("{name}.lora_A.weight"),
                shape: vec![rank, module.inputs],
                fill: Fill::Normal(1.0 / (module.inputs as f32).sqrt()),
            });
            tensors.push(Tensor {
                name: format!("{name}.lora_B.weight"),
                shape: vec![module.outputs, rank],
                fill: Fill::Normal(EFFECT / (rank as f32).sqrt()),
            });
        }
    }
    Ok(tensors)
}
