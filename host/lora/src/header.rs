//! The header of `adapter_model.safetensors`: which tensors lie where, checked against what a
//! configuration requires and against the file's length. Reads no tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kernels::WeightFormat;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::config::Target;
use crate::seen::FileStamp;
use crate::{LoraError, ModelShape, files};

/// Largest header that is read.
pub(crate) const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Bytes of the header's own length.
const LENGTH_BYTES: u64 = 8;

/// A weights file whose header was read and not looked at.
pub(crate) struct RawFile {
    path: PathBuf,
    file: File,
    /// Bytes of the file.
    length: u64,
    header: Vec<u8>,
}

impl RawFile {
    /// Opens the weights of `dir`, which may be no longer than `targets` allow.
    pub(crate) fn open(
        dir: &Path,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Self, LoraError> {
        let path = dir.join(files::WEIGHTS_FILE);
        let elements = targets.iter().map(|target| {
            let module = &shape.modules[target.module];
            (target.rank as u64).saturating_mul((module.in_features + module.out_features) as u64)
        });
        let elements = elements.fold(0, u64::saturating_add);
        let bytes_max = elements.saturating_mul(4).saturating_add(HEADER_BYTES_MAX);
        let (file, length) = files::open(&path, bytes_max)?;
        let header = read_header(&path, &file, length)?;
        Ok(Self { path, file, length, header })
    }

    /// Checks names, shapes, types and the file's length.
    pub(crate) fn check(
        self,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<WeightsFile, LoraError> {
        let header: Metadata = serde_json::from_slice(&self.header)
            .map_err(|error| self.refused(format!("header: {error}")))?;
        self.check_length(header.data_len() as u64)?;
        let expected = expected_tensors(shape, targets);
        let mut names = header.offset_keys();
        names.sort_unstable();
        let Self { path, file, header: raw, .. } = self;
        if let Some(name) = names.iter().find(|name| !expected.contains_key(*name)) {
            return Err(LoraError::TensorUnknown { name: name.clone(), path });
        }
        let data_start = LENGTH_BYTES + raw.len() as u64;
        let weights = WeightsFile { path, file, header, data_start, names };
        for (name, dims) in &expected {
            weights.check(name, *dims)?;
        }
        Ok(weights)
    }

    fn check_length(&self, expected: u64) -> Result<(), LoraError> {
        let found = self.length - LENGTH_BYTES - self.header.len() as u64;
        if expected != found {
            let reason =
                format!("{found} bytes of tensors, the header says {expected}: cut short?");
            return Err(self.refused(reason));
        }
        Ok(())
    }

    fn refused(&self, reason: String) -> LoraError {
        LoraError::WeightsFile { path: self.path.clone(), reason }
    }
}

/// The last header that was checked. Adapters of one recipe differ in their weights alone, so that a
/// folder of thousands has few headers to check.
#[derive(Default)]
pub(crate) struct LastHeader(Mutex<Option<Arc<Checked>>>);

struct Checked {
    header: Vec<u8>,
    /// Module and rank of each target.
    targets: Vec<(usize, usize)>,
    /// Bytes of all tensors in the file.
    data_bytes: u64,
    /// Bytes of the weights in memory.
    bytes: Option<u64>,
}

impl LastHeader {
    /// Checks `file` and tells how many bytes its weights take in memory; `None` if they can't be
    /// addressed.
    pub(crate) fn bytes(
        &self,
        file: RawFile,
        shape: &ModelShape,
        targets: &[Target],
    ) -> Result<Option<u64>, LoraError> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sizes = targets.iter().map(|target| (target.module, target.rank));
        let same = |last: &&Arc<Checked>| {
            last.header == file.header && last.targets.iter().copied().eq(sizes.clone())
        };
        if let Some(last) = last.as_ref().filter(same) {
            file.check_length(last.data_bytes)?;
            return Ok(last.bytes);
        }
        let header = file.header.clone();
        let checked = file.check(shape, targets)?;
        let bytes = checked.bytes(shape, targets)?;
        let data_bytes = checked.header.data_len() as u64;
        let checked = Checked { header, targets: sizes.collect(), data_bytes, bytes };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(checked));
        Ok(bytes)
    }
}

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
            sum = sum.and_then(|sum| sum.checked_add(module.pair_bytes(target.rank, width)?));
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

    /// Which file it is, and when it was last written to.
    pub(crate) fn stamp(&self) -> Result<FileStamp, LoraError> {
        let failed = |source| LoraError::Read { path: self.path.clone(), source };
        FileStamp::of(&self.file).map_err(failed)
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

/// The bytes of the header.
fn read_header(path: &Path, file: &File, length: u64) -> Result<Vec<u8>, LoraError> {
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
    Ok(header)
}
