//! From the name of an architecture to its constructor.

use std::path::Path;

use crate::config::ModelConfig;
use crate::{CausalLm, LoadOptions, ModelError};

/// Loads the model of a Hugging Face directory (`config.json`, `generation_config.json` where there
/// is one, `model.safetensors` or `model.safetensors.index.json` with its shards).
///
/// # Errors
/// A file that can't be read or is torn, a configuration that is not supported, a tensor that is
/// missing or of the wrong shape; each names the file and the key or tensor.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Box<dyn CausalLm>, ModelError> {
    let config = ModelConfig::from_dir(dir)?;
    let _ = options;
    Err(ModelError::Unsupported {
        key: "architectures",
        value: config.architecture.to_string(),
        hint: "",
    })
}
