//! `Qwen3MoeForCausalLM`: Qwen3 with experts in every `decoder_sparse_step`-th layer but those of
//! `mlp_only_layers`; a window counts for all layers.

use super::{Traits, qwen3};
use crate::ModelError;
use crate::config::{Experts, RawConfig, invalid};

pub(crate) fn traits(raw: &RawConfig) -> Result<Traits, ModelError> {
    let window = raw.sliding_window.filter(|_| raw.use_sliding_window.unwrap_or(false));
    Ok(Traits {
        head_dim_default: None,
        sliding_windows: vec![window; raw.num_hidden_layers],
        experts: Some(experts(raw)?),
        ..qwen3::traits(raw)?
    })
}

fn experts(raw: &RawConfig) -> Result<Experts, ModelError> {
    let required =
        |key, value: Option<usize>| value.ok_or_else(|| invalid(key, "the key is missing"));
    // transformers 5 writes another name than checkpoints have.
    let count = required("num_experts", raw.num_experts.or(raw.num_local_experts))?;
    let per_token = required("num_experts_per_tok", raw.num_experts_per_tok)?;
    if per_token == 0 || per_token > count {
        let reason = format!("{per_token} of {count} experts");
        return Err(invalid("num_experts_per_tok", reason));
    }
    let step = raw.decoder_sparse_step.unwrap_or(1);
    if step == 0 {
        return Err(invalid("decoder_sparse_step", "0 is no step"));
    }
    let dense = raw.mlp_only_layers.as_deref().unwrap_or_default();
    let sparse = |layer: usize| !dense.contains(&layer) && (layer + 1).is_multiple_of(step);
    Ok(Experts {
        count,
        per_token,
        intermediate_size: required("moe_intermediate_size", raw.moe_intermediate_size)?,
        normalised: raw.norm_topk_prob.unwrap_or(false),
        layers: (0..raw.num_hidden_layers).map(sparse).collect(),
    })
}
