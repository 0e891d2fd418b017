//! Small adapters on disk, for the tests of this crate.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::{ModelShape, ModuleShape};

/// Inputs and outputs of the modules of [`shape`].
pub(crate) const SIZES: (usize, usize) = (6, 10);

/// Two layers with one module each.
pub(crate) fn shape() -> ModelShape {
    let module = |layer: usize| ModuleShape {
        path: format!("model.layers.{layer}.q_proj"),
        in_features: SIZES.0,
        out_features: SIZES.1,
        adaptable: true,
        cuts: Vec::new(),
    };
    ModelShape { modules: vec![module(0), module(1)] }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
    pub(crate) bytes: Vec<u8>,
}

/// The four tensors of an adapter of rank `rank`, filled with `value` and its successors.
pub(crate) fn tensors(rank: usize, value: f32) -> Vec<Written> {
    let mut written = Vec::new();
    for layer in 0..2 {
        for (letter, shape) in [('A', [rank, SIZES.0]), ('B', [SIZES.1, rank])] {
            let count = shape[0] * shape[1];
            let bytes = (0..count).flat_map(|i| (value + i as f32).to_le_bytes()).collect();
            written.push(Written {
                name: format!("base_model.model.model.layers.{layer}.q_proj.lora_{letter}.weight"),
                shape: shape.to_vec(),
                dtype: Dtype::F32,
                bytes,
            });
        }
    }
    written
}

/// Writes an adapter to `dir`.
pub(crate) fn write(dir: &Path, config: &str, tensors: &[Written]) {
    let config = format!(r#"{{"peft_type": "LORA", "target_modules": ["q_proj"], {config}}}"#);
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(crate::config::CONFIG_FILE), config).unwrap();
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (tensor.name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.join(crate::files::WEIGHTS_FILE), bytes).unwrap();
}
