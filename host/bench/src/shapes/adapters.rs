//! PEFT directories: LoRA adapters of one rank, each with content of its own.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};

use super::draw::{Dtype, Fill};
use super::model::write_json;
use super::tensors::{Tensor, write_file};
use super::{Shape, TARGETS};
use crate::BenchError;

/// How much of a layer's output an adapter changes: enough for another answer, too little to drown
/// the base.
const EFFECT: f32 = 0.1;
/// PEFT's name of the weights.
pub(crate) const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Which adapters to make.
#[derive(Clone, Debug)]
pub struct AdapterPlan {
    /// How many.
    pub count: usize,
    /// Weights files of their own; the adapters behind so many have links to those, by turns.
    pub distinct: usize,
    /// Rank of each; `lora_alpha` is twice that, and a little more where weights are shared.
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

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeAdapters {
    /// Adapters.
    pub count: usize,
    /// Those whose weights are a link to another's.
    pub links: usize,
    /// Bytes of one weights file.
    pub file_bytes: u64,
}

/// Makes adapters for models of `shape` in directories `adapter-00000` and on below `dir`. The first
/// `distinct` have weights of their own; of those behind them each has a hard link to one of these,
/// and a `lora_alpha` that nobody else with these weights has: to a server it is another adapter, that
/// it must hold for itself, while disks and page caches hold its file once.
///
/// # Errors
/// A target that is no module, a rank that a module has no room for, or a file that can't be
/// written.
pub fn make_adapters(
    shape: &Shape,
    dir: &Path,
    plan: &AdapterPlan,
) -> Result<MadeAdapters, BenchError> {
    let tensors = tensors(shape, plan)?;
    if plan.distinct == 0 && plan.count > 0 {
        return Err(BenchError::setting("distinct", "must be at least 1"));
    }
    let weights = |index: usize| dir.join(adapter_name(index)).join(WEIGHTS_FILE);
    for index in 0..plan.count {
        let folder = dir.join(adapter_name(index));
        fs::create_dir_all(&folder).map_err(BenchError::io("create", &folder))?;
        let turn = index / plan.distinct;
        write_json(&folder.join("adapter_config.json"), &config(plan, turn))?;
        let path = weights(index);
        // It may be a link from before, to a file that is to stay as it is.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BenchError::io("remove", &path)(error));
            }
            _ => {}
        }
        if turn > 0 {
            let first = weights(index % plan.distinct);
            fs::hard_link(&first, &path).map_err(BenchError::io("link", &path))?;
            continue;
        }
        // Neighbouring seeds must not share adapters, whatever the number of each.
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
        write_file(&path, &tensors, plan.dtype, seed)?;
    }
    let file_bytes = match plan.count {
        0 => 0,
        _ => {
            let path = weights(0);
            fs::metadata(&path).map_err(BenchError::io("look at", &path))?.len()
        }
    };
    let links = plan.count.saturating_sub(plan.distinct);
    Ok(MadeAdapters { count: plan.count, links, file_bytes })
}

/// The configuration of the adapters that use the weights files for the `turn`th time, from 0.
fn config(plan: &AdapterPlan, turn: usize) -> Value {
    // The whole number stays one for who uses its files first.
    let alpha = 2 * plan.rank;
    let alpha =
        if turn == 0 { json!(alpha) } else { json!(alpha as f64 * (1.0 + turn as f64 / 1024.0)) };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "r": plan.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": plan.targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
        "inference_mode": true,
    })
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
