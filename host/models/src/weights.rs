//! Weights of a checkpoint: `model.safetensors`, the shards of an index, or a GGUF file, mapped while
//! they are packed and unmapped after.
//!
//! The one place outside `kernels` with unsafe code. It never hands out a tensor without having
//! checked its shape and its type.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kernels::{WeightBytes, WeightFormat};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::ModelError;
use crate::gguf::{Gguf, GgufTensor, tokenizer_metadata, unpaired};

/// A checkpoint in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Which shard has which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Buffers that old exporters wrote beside the weights.
const IGNORED_SUFFIX: &str = "rotary_emb.inv_freq";

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    /// Or the name of a type that is not read.
    format: Result<WeightFormat, String>,
    shape: Vec<usize>,
    bytes: Range<usize>,
    /// The bytes, if they can't be read where they lie.
    reordered: Option<Vec<u8>>,
}

/// All tensors of a checkpoint.
#[derive(Debug)]
pub struct Weights {
    dir: PathBuf,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
    /// Names that were asked for, so that what nobody wanted can be reported.
    taken: RefCell<BTreeSet<String>>,
}

impl Weights {
    /// Maps the weights of a directory and reads the headers.
    ///
    /// # Errors
    /// A file that can't be read, is cut short or has a lying header; an index that names a file
    /// outside the directory, or a tensor that its shard does not have.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (shards, entries, taken) = Default::default();
        let mut weights = Self { dir: dir.to_owned(), shards, entries, taken };
        let single = dir.join(WEIGHTS_FILE);
        if single.exists() {
            weights.add_shard(single)?;
            return Ok(weights);
        }
        let path = dir.join(INDEX_FILE);
        let index: Index = crate::config::read_json(&path)?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        for file in files {
            if !is_plain_name(file) {
                let reason = format!("weight_map names {file:?}, which is not a plain file name");
                return Err(ModelError::WeightsFile { path, reason });
            }
            weights.add_shard(dir.join(file))?;
        }
        for (name, file) in &index.weight_map {
            let entry = weights.entries.get(name);
            if entry.is_none_or(|entry| !weights.shards[entry.shard].path.ends_with(file)) {
                let path = dir.join(file);
                return Err(ModelError::TensorMissing { name: name.clone(), path });
            }
        }
        Ok(weights)
    }

    /// Maps a GGUF file; also returns its metadata as the keys of `config.json`.
    ///
    /// # Errors
    /// A file that can't be read, is cut short or lies, or holds what is not supported.
    pub(crate) fn open_gguf(path: &Path) -> Result<(Self, serde_json::Value), ModelError> {
        let broken = |reason: String| ModelError::WeightsFile { path: path.to_owned(), reason };
        let map = map(path)?;
        let gguf = Gguf::read(&map).map_err(broken)?;
        let config = gguf.config(&map).map_err(broken)?;
        let mut entries = BTreeMap::new();
        for tensor in gguf.tensors().map_err(broken)? {
            let GgufTensor { name, format, shape, bytes, paired_rows } = tensor;
            let rows = shape.first().copied().unwrap_or(0).max(1);
            let reordered = paired_rows
                .map(|head_rows| unpaired(&map[bytes.clone()], bytes.len() / rows, head_rows));
            let entry = Entry { shard: 0, format: Ok(format), shape, bytes, reordered };
            if entries.insert(name.clone(), entry).is_some() {
                return Err(broken(format!("two tensors are {name}")));
            }
        }
        let shards = vec![Shard { path: path.to_owned(), map }];
        let weights = Self { dir: path.to_owned(), shards, entries, taken: RefCell::default() };
        Ok((weights, config))
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let map = map(&path)?;
        let broken = |reason: String| ModelError::WeightsFile { path: path.clone(), reason };
        let tensors = SafeTensors::deserialize(&map).map_err(|error| broken(error.to_string()))?;
        let base = map.as_ptr().addr();
        for (name, view) in tensors.tensors() {
            let start = view.data().as_ptr().addr() - base;
            let entry = Entry {
                shard: self.shards.len(),
                format: match view.dtype() {
                    Dtype::F32 => Ok(WeightFormat::F32),
                    Dtype::F16 => Ok(WeightFormat::F16),
                    Dtype::BF16 => Ok(WeightFormat::Bf16),
                    other => Err(format!("{other:?}")),
                },
                shape: view.shape().to_vec(),
                bytes: start..start + view.data().len(),
                reordered: None,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(broken(format!("tensor {name} is in another shard too")));
            }
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    /// A tensor of these dimensions, at most two; one dimension reads as one row.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, or not f32, f16 or bf16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<WeightBytes<'_>, ModelError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(ModelError::TensorMissing {
                name: name.to_owned(),
                path: self.dir.clone(),
            });
        };
        self.taken.borrow_mut().insert(name.to_owned());
        let shard = &self.shards[entry.shard];
        if entry.shape != shape {
            return Err(ModelError::TensorShape {
                name: name.to_owned(),
                path: shard.path.clone(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let format = entry.format.clone().map_err(|dtype| ModelError::TensorDtype {
            name: name.to_owned(),
            path: shard.path.clone(),
            dtype,
        })?;
        let columns = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        let mapped = || &shard.map[entry.bytes.clone()];
        let bytes = entry.reordered.as_deref().unwrap_or_else(mapped);
        Ok(WeightBytes::new(bytes, format, rows, columns)?)
    }

    /// A vector as floats.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        Ok(self.tensor(name, &[len])?.to_floats())
    }

    /// A format of blocks in which some weight is kept, other than `known`.
    pub(crate) fn blocks_other_than(&self, known: WeightFormat) -> Option<WeightFormat> {
        let formats = self.entries.values().filter_map(|entry| entry.format.as_ref().ok());
        formats.copied().find(|format| format.is_quantized() && *format != known)
    }

    /// Longest blocks that a layer's weight is kept in.
    pub(crate) fn layers_block_len(&self) -> usize {
        let layers = self.entries.iter().filter(|(name, _)| name.starts_with("model.layers."));
        let formats = layers.filter_map(|(_, entry)| entry.format.as_ref().ok());
        formats.map(|format| format.block_len()).max().unwrap_or(1)
    }

    /// Checks that nothing of the model's own was left out: a bias, say, that the configuration
    /// does not mention. Tensors outside `model.` (a second head) may be left.
    ///
    /// # Errors
    /// The first tensor that was not asked for.
    pub fn check_all_taken(&self) -> Result<(), ModelError> {
        let taken = self.taken.borrow();
        let left = self.entries.iter().find(|(name, _)| {
            name.starts_with("model.") && !name.ends_with(IGNORED_SUFFIX) && !taken.contains(*name)
        });
        match left {
            None => Ok(()),
            Some((name, entry)) => Err(ModelError::WeightsFile {
                path: self.shards[entry.shard].path.clone(),
                reason: format!("tensor {name} has no place in this configuration"),
            }),
        }
    }
}

/// A file, mapped.
/// What the GGUF file at `path` says of its tokenizer: the metadata whose keys begin with `tokenizer.`,
/// lists as arrays.
///
/// # Errors
/// A file that can't be read, is cut short or lies.
pub fn gguf_tokenizer(
    path: &Path,
) -> Result<serde_json::Map<String, serde_json::Value>, ModelError> {
    let broken = |reason: String| ModelError::WeightsFile { path: path.to_owned(), reason };
    tokenizer_metadata(&map(path)?).map_err(broken)
}

fn map(path: &Path) -> Result<Mmap, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the mapping is read-only, and private to a value that lives while the model is packed.
    // Should another process change the file in that time, we read other numbers; should it cut the
    // file, the process gets SIGBUS. Neither can be ruled out for any mapped file; a checkpoint is not
    // written to while it is served.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// Whether a shard's name stays in its directory on any system.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':', '\0'])
        && name.ends_with(".safetensors")
}
