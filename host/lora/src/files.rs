//! `adapter_model.safetensors`: the tensors that a configuration requires, no more and no less.
//!
//! Names are PEFT's: `base_model.model.<path>.lora_A.weight` is `[r, in]`, `lora_B` is `[out, r]`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kernels::{LoraPair, WeightBytes, WeightFormat};
use request::{AdapterGeneration, Digest};
use safetensors::{Dtype, SafeTensors};

use crate::config::Target;
use crate::{LoraError, ModelShape};

/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Room for the header of the weights file, beyond the tensors themselves.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// First field of the hashed content; a change of what is hashed changes it.
const IDENTITY_TAG: &[u8] = b"mortise adapter 1";

/// What the files gave.
pub(crate) struct Loaded {
    /// Hash of the effective configuration and the tensors.
    pub generation: AdapterGeneration,
    /// One entry per module of the shape.
    pub modules: Vec<Option<LoraPair>>,
}

/// Reads, checks and lays out all tensors.
pub(crate) fn load(
    dir: &Path,
    shape: &ModelShape,
    targets: &[Target],
) -> Result<Loaded, LoraError> {
    let path = dir.join(WEIGHTS_FILE);
    let expected = expected_tensors(shape, targets);
    let elements = expected.values().map(|dims| dims[0] as u64 * dims[1] as u64).sum::<u64>();
    let bytes = read(&path, elements.saturating_mul(4).saturating_add(HEADER_BYTES_MAX))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| LoraError::WeightsFile {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| !expected.contains_key(*name)) {
        return Err(LoraError::TensorUnknown { name: name.clone(), path });
    }
    let source = Source { path, file };
    let mut modules: Vec<Option<LoraPair>> = shape.modules.iter().map(|_| None).collect();
    for target in targets {
        let module = &shape.modules[target.module];
        let (rank, inputs, outputs) = (target.rank, module.in_features, module.out_features);
        let a = source.weight(&tensor_name(&module.path, 'A'), [rank, inputs])?;
        let b = source.weight(&tensor_name(&module.path, 'B'), [outputs, rank])?;
        let pair = LoraPair::new(&a, &b, target.scale)?;
        modules[target.module] = Some(pair);
    }
    Ok(Loaded { generation: identity(shape, targets, &source, &names)?, modules })
}

fn tensor_name(path: &str, letter: char) -> String {
    format!("base_model.model.{path}.lora_{letter}.weight")
}

fn expected_tensors(shape: &ModelShape, targets: &[Target]) -> BTreeMap<String, [usize; 2]> {
    let mut expected = BTreeMap::new();
    for target in targets {
        let module = &shape.modules[target.module];
        expected.insert(tensor_name(&module.path, 'A'), [target.rank, module.in_features]);
        expected.insert(tensor_name(&module.path, 'B'), [module.out_features, target.rank]);
    }
    expected
}

/// Hash of what changes an answer: the scale of each module and the tensors. Keys such as dropout,
/// and the order in which the file lists things, are no part of an adapter's identity.
fn identity(
    shape: &ModelShape,
    targets: &[Target],
    source: &Source<'_>,
    names: &[String],
) -> Result<AdapterGeneration, LoraError> {
    let mut fields: Vec<Vec<u8>> = vec![IDENTITY_TAG.to_vec()];
    for target in targets {
        fields.push(shape.modules[target.module].path.as_bytes().to_vec());
        fields.push((target.rank as u64).to_le_bytes().to_vec());
        fields.push(target.scale.to_bits().to_le_bytes().to_vec());
    }
    for name in names {
        let tensor = source.tensor(name)?;
        fields.push(name.as_bytes().to_vec());
        fields.push(format!("{:?} {:?}", tensor.dtype(), tensor.shape()).into_bytes());
        fields.push(Digest::of(tensor.data()).0.to_vec());
    }
    Ok(AdapterGeneration(Digest::of_fields(fields.iter().map(Vec::as_slice))))
}

/// The whole file, if it is a regular one and no longer than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoraError> {
    let failed = |source| LoraError::Read { path: path.to_owned(), source };
    // Looked at before it is opened, because opening a pipe can wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LoraError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    if length <= bytes_max {
        // The file may grow while it is read, and some files have no length.
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    }
    let length = length.max(bytes.len() as u64);
    if length > bytes_max {
        return Err(LoraError::FileTooLarge { path: path.to_owned(), bytes: length, bytes_max });
    }
    Ok(bytes)
}

struct Source<'a> {
    path: PathBuf,
    file: SafeTensors<'a>,
}

impl<'a> Source<'a> {
    fn tensor(&self, name: &str) -> Result<safetensors::tensor::TensorView<'a>, LoraError> {
        let missing =
            |_| LoraError::TensorMissing { name: name.to_owned(), path: self.path.clone() };
        self.file.tensor(name).map_err(missing)
    }

    fn weight(&self, name: &str, expected: [usize; 2]) -> Result<WeightBytes<'a>, LoraError> {
        let tensor = self.tensor(name)?;
        if tensor.shape() != expected {
            return Err(LoraError::TensorShape {
                name: name.to_owned(),
                path: self.path.clone(),
                expected: expected.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
        let format = match tensor.dtype() {
            Dtype::F32 => WeightFormat::F32,
            Dtype::F16 => WeightFormat::F16,
            Dtype::BF16 => WeightFormat::Bf16,
            other => {
                return Err(LoraError::TensorDtype {
                    name: name.to_owned(),
                    path: self.path.clone(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        Ok(WeightBytes::new(tensor.data(), format, expected[0], expected[1])?)
    }
}

#[cfg(test)]
mod tests;
