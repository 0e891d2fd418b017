//! The files of an adapter: opened with care, and their tensors laid out one pair at a time.
//!
//! Names are PEFT's: `base_model.model.<path>.lora_A.weight` is `[r, in]`, `lora_B` is `[out, r]`.
//! Beside the result, no more than one pair of tensors is in memory: a load of any size takes what
//! the adapter itself takes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use kernels::{LoraPair, WeightBytes};
use request::{AdapterGeneration, Digest};

use crate::blend::Pairs;
use crate::config::Target;
use crate::header::{WeightsFile, tensor_name};
use crate::index::Plan;
use crate::seen::Seen;
use crate::{LoraError, ModelShape};

/// Name of the weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// First field of the hashed content; a change of what is hashed changes it.
const IDENTITY_TAG: &[u8] = b"mortise adapter 1";

/// What the files gave.
pub(crate) struct Loaded {
    /// Hash of the effective configuration and the tensors.
    pub generation: AdapterGeneration,
    /// One entry per module of the shape: a part per rank, or nothing.
    pub modules: Vec<Vec<LoraPair>>,
    /// What spares the next load the hashing.
    pub seen: Option<Seen>,
}

/// Reads and lays out all tensors of a file that was opened for `targets`. A file that is what it was
/// when it was `seen` is not hashed again.
pub(crate) fn load(
    file: WeightsFile,
    shape: &ModelShape,
    targets: &[Target],
    seen: Option<&Seen>,
) -> Result<Loaded, LoraError> {
    file.read_ahead();
    let (stamp, begun) = (file.stamp()?, SystemTime::now());
    let mut source = Source::new(file);
    let frame = source.frame(shape, targets)?;
    let known = seen.filter(|seen| seen.file == stamp && seen.frame == frame);
    if let Some(seen) = known {
        source.hashes = false;
        let modules = source.modules(shape, targets)?;
        if source.file.stamp()? == stamp {
            let (generation, seen) = (seen.generation, Some(*seen));
            return Ok(Loaded { generation, modules, seen });
        }
        // Written to meanwhile: what was read is nothing that was hashed.
        source.hashes = true;
    }
    let modules = source.modules(shape, targets)?;
    let generation = source.identity(shape, targets)?;
    let settled = source.file.stamp()? == stamp && stamp.is_settled(begun);
    let seen = settled.then_some(Seen { file: stamp, frame, generation });
    Ok(Loaded { generation, modules, seen })
}

/// Reads the tensors of all parts and lays them side by side; the generation of each part. A part is
/// what it was indexed as, and the factor of its product.
pub(crate) fn load_blend(
    parts: Vec<(Plan, f32)>,
    shape: &ModelShape,
) -> Result<(Vec<AdapterGeneration>, Vec<Vec<LoraPair>>), LoraError> {
    let mut sources = Vec::new();
    for (Plan { file, targets, .. }, weight) in parts {
        file.read_ahead();
        sources.push((Source::new(file), targets, weight));
    }
    let (mut modules, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    for (index, module) in shape.modules.iter().enumerate() {
        let mut pairs = Pairs::default();
        for (source, targets, weight) in &mut sources {
            let Some(target) = targets.iter().find(|target| target.module == index) else {
                continue;
            };
            let (a_size, b_size) =
                ([target.rank, module.in_features], [module.out_features, target.rank]);
            let a = source.weight(&tensor_name(&module.path, 'A'), a_size, &mut a)?;
            let b = source.weight(&tensor_name(&module.path, 'B'), b_size, &mut b)?;
            pairs.push(&a, &b, target.scale * *weight);
        }
        modules.push(pairs.join(module)?);
    }
    let identities = sources.iter().map(|(source, targets, _)| source.identity(shape, targets));
    Ok((identities.collect::<Result<_, _>>()?, modules))
}

/// A weights file while it is read, with the digests of what was read so far.
struct Source {
    file: WeightsFile,
    /// Whether what is read is hashed.
    hashes: bool,
    digests: HashMap<String, Digest>,
}

impl Source {
    fn new(file: WeightsFile) -> Self {
        Self { file, hashes: true, digests: HashMap::new() }
    }

    /// Reads and lays out everything.
    fn modules(
        &mut self,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Vec<Vec<LoraPair>>, LoraError> {
        let mut modules: Vec<Vec<LoraPair>> = shape.modules.iter().map(|_| Vec::new()).collect();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for target in self.in_file_order(shape, targets)? {
            let module = &shape.modules[target.module];
            let (rank, inputs, outputs) = (target.rank, module.in_features, module.out_features);
            let a = self.weight(&tensor_name(&module.path, 'A'), [rank, inputs], &mut a)?;
            let b = self.weight(&tensor_name(&module.path, 'B'), [outputs, rank], &mut b)?;
            modules[target.module] = LoraPair::divided(&a, &b, target.scale, &module.cuts)?;
        }
        Ok(modules)
    }

    /// The targets in the order in which their tensors lie.
    fn in_file_order(
        &self,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Vec<Target>, LoraError> {
        let mut placed = Vec::new();
        for target in targets {
            let name = tensor_name(&shape.modules[target.module].path, 'A');
            placed.push((self.file.info(&name)?.data_offsets.0, *target));
        }
        placed.sort_by_key(|(start, _)| *start);
        Ok(placed.into_iter().map(|(_, target)| target).collect())
    }

    /// Reads a tensor into `buffer`.
    fn weight<'a>(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        buffer: &'a mut Vec<u8>,
    ) -> Result<WeightBytes<'a>, LoraError> {
        self.file.read(name, buffer)?;
        if self.hashes {
            self.digests.insert(name.to_owned(), Digest::of(buffer));
        }
        let format = self.file.format(name)?;
        Ok(WeightBytes::new(buffer, format, rows, columns)?)
    }

    /// Hash of what changes an answer: the scale of each module and the tensors. Keys such as
    /// dropout, and the order in which the file lists things, are no part of an adapter's identity.
    fn identity(
        &self,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<AdapterGeneration, LoraError> {
        let content = |name: &str| self.digests[name].0.to_vec();
        Ok(AdapterGeneration(self.digest(shape, targets, content)?))
    }

    /// The same with the place of each tensor instead of its content.
    fn frame(&self, shape: &ModelShape, targets: &[Target]) -> Result<Digest, LoraError> {
        let place = |name: &str| {
            let place = self.file.info(name).map(|info| info.data_offsets);
            let (start, end) = place.unwrap_or_default();
            [(start as u64).to_le_bytes(), (end as u64).to_le_bytes()].concat()
        };
        self.digest(shape, targets, place)
    }

    fn digest(
        &self,
        shape: &ModelShape,
        targets: &[Target],
        last: impl Fn(&str) -> Vec<u8>,
    ) -> Result<Digest, LoraError> {
        let mut fields: Vec<Vec<u8>> = vec![IDENTITY_TAG.to_vec()];
        for target in targets {
            fields.push(shape.modules[target.module].path.as_bytes().to_vec());
            fields.push((target.rank as u64).to_le_bytes().to_vec());
            fields.push(target.scale.to_bits().to_le_bytes().to_vec());
        }
        for name in self.file.names() {
            let info = self.file.info(name)?;
            fields.push(name.as_bytes().to_vec());
            fields.push(format!("{:?} {:?}", info.dtype, info.shape).into_bytes());
            fields.push(last(name));
        }
        Ok(Digest::of_fields(fields.iter().map(Vec::as_slice)))
    }
}

/// Opens a regular file no longer than `bytes_max`; its length.
pub(crate) fn open(path: &Path, bytes_max: u64) -> Result<(File, u64), LoraError> {
    let failed = |source| LoraError::Read { path: path.to_owned(), source };
    // Looked at before it is opened, because opening a pipe can wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LoraError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > bytes_max {
        return Err(LoraError::FileTooLarge { path: path.to_owned(), bytes: length, bytes_max });
    }
    Ok((file, length))
}

/// The whole file, if it is a regular one and no longer than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoraError> {
    let (file, length) = open(path, bytes_max)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // The file may grow while it is read, and some files have no length.
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| LoraError::Read { path: path.to_owned(), source })?;
    let bytes_read = bytes.len() as u64;
    if bytes_read > bytes_max {
        let path = path.to_owned();
        return Err(LoraError::FileTooLarge { path, bytes: bytes_read, bytes_max });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
