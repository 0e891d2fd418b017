//! The header of `adapter_model.safetensors`: which tensors lie where, checked against what a
//! configuration requires and against the file's length. Reads no tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kernels::{LoraPair, WeightFormat};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::config::Target;
use crate::{LoraError, ModelShape, files};

/// Largest header that is read.
pub(crate) const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Bytes of the header's own length.
const LENGTH_BYTES: u64 = 8;

/// An open weights file that has exactly the tensors required.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the tensors begin.
    data_start: u64,
    /// Names of all tensors, sorted.
    names: Vec<String>,
}

impl WeightsFile {
    /// Opens the weights of `dir` and checks names, shapes, types and the file's length.
    pub(crate) fn open(
        dir: &Path,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Self, LoraError> {
        let path = dir.join(files::WEIGHTS_FILE);
        let expected = expected_tensors(shape, targets);
        let elements = expected.values().map(|dims| dims[0] as u64 * dims[1] as u64).sum::<u64>();
        let bytes_max = elements.saturating_mul(4).saturating_add(HEADER_BYTES_MAX);
        let (file, length) = files::open(&path, bytes_max)?;
        let (header, data_start) = read_header(&path, &file, length)?;
        let mut names = header.offset_keys();
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| !expected.contains_key(*name)) {
            return Err(LoraError::TensorUnknown { name: name.clone(), path });
        }
        let weights = Self { path, file, header, data_start, names };
        for (name, dims) in &expected {
            weights.check(name, *dims)?;
        }
        Ok(weights)
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Type, shape and place of a tensor.
    pub(crate) fn info(&self, name: &str) -> Result<&TensorInfo, LoraError> {
        self.header.info(name).ok_or_else(|| LoraError::TensorMissing {
            name: name.to_owned(),
            path: self.path.clone(),
        })
    }

    /// How the numbers of a tensor are kept.
    pub(crate) fn format(&self, name: &str) -> Result<WeightFormat, LoraError> {
        match self.info(name)?.dtype {
            Dtype::F32 => Ok(WeightFormat::F32),
            Dtype::F16 => Ok(WeightFormat::F16),
            Dtype::BF16 => Ok(WeightFormat::Bf16),
            other => Err(LoraError::TensorDtype {
                name: name.to_owned(),
                path: self.path.clone(),
                dtype: format!("{other:?}"),
            }),
        }
    }

    /// Bytes of the weights in memory; `None` if they can't be addressed.
    pub(crate) fn bytes(
        &self,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Option<u64>, LoraError> {
        let mut sum = Some(0_u64);
        for target in targets {
            let module = &shape.modules[target.module];
            let width = |letter| self.format(&tensor_name(&module.path, letter));
            let width = width('A')?.block_bytes().max(width('B')?.block_bytes());
            let sizes = (target.rank, module.in_features, module.out_features);
            sum = sum.and_then(|sum| sum.checked_add(LoraPair::bytes_for(sizes, width)?));
        }
        Ok(sum)
    }

    /// Reads the bytes of a tensor into `buffer`, which becomes as long as they are.
    pub(crate) fn read(&self, name: &str, buffer: &mut Vec<u8>) -> Result<(), LoraError> {
        let (start, end) = self.info(name)?.data_offsets;
        buffer.resize(end - start, 0);
        self.file
            .read_exact_at(buffer, self.data_start + start as u64)
            .map_err(|source| LoraError::Read { path: self.path.clone(), source })
    }

    /// Tells the system that all of the file will be read soon.
    pub(crate) fn read_ahead(&self) {
        use rustix::fs::{Advice, fadvise};
        // A hint: where the system has none, reading is as fast as it is.
        let _ = fadvise(&self.file, 0, None, Advice::WillNeed);
    }

    fn check(&self, name: &str, expected: [usize; 2]) -> Result<(), LoraError> {
        let info = self.info(name)?;
        if info.shape != expected {
            return Err(LoraError::TensorShape {
                name: name.to_owned(),
                path: self.path.clone(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        self.format(name).map(|_| ())
    }
}

/// Name of one of the two tensors of a module.
pub(crate) fn tensor_name(path: &str, letter: char) -> String {
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

/// The header, and where the tensors begin.
fn read_header(path: &Path, file: &File, length: u64) -> Result<(Metadata, u64), LoraError> {
    let refused = |reason: String| LoraError::WeightsFile { path: path.to_owned(), reason };
    let read = |buffer: &mut [u8], at: u64| {
        let failed = |source| LoraError::Read { path: path.to_owned(), source };
        file.read_exact_at(buffer, at).map_err(failed)
    };
    if length < LENGTH_BYTES {
        return Err(refused(format!("{length} bytes, too short for a header")));
    }
    let mut head = [0; LENGTH_BYTES as usize];
    read(&mut head, 0)?;
    let header_bytes = u64::from_le_bytes(head);
    if header_bytes > HEADER_BYTES_MAX || header_bytes > length - LENGTH_BYTES {
        return Err(refused(format!("a header of {header_bytes} bytes in a file of {length}")));
    }
    let mut header = vec![0; header_bytes as usize];
    read(&mut header, LENGTH_BYTES)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| refused(format!("header: {error}")))?;
    let data_start = LENGTH_BYTES + header_bytes;
    let (expected, found) = (header.data_len() as u64, length - data_start);
    if expected != found {
        let reason = format!("{found} bytes of tensors, the header says {expected}: cut short?");
        return Err(refused(reason));
    }
    Ok((header, data_start))
}
