//! A safetensors file, written from front to back: nothing of it is held but its header.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::draw::{self, Dtype, Fill};
use crate::BenchError;

/// One tensor to be made.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Its name in the file.
    pub(super) name: String,
    /// Its sizes.
    pub(super) shape: Vec<usize>,
    /// Its content.
    pub(super) fill: Fill,
}

impl Tensor {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The header, with its length in front.
fn header(tensors: &[Tensor], dtype: Dtype) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.count() * dtype.bytes();
        let entry = json!({
            "dtype": dtype.tag(),
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        });
        entries.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    // Readers map the file: values must stand at multiples of their size.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

/// Writes a file with all of `tensors`.
///
/// # Errors
/// The file can't be written.
pub(super) fn write_file(
    path: &Path,
    tensors: &[Tensor],
    dtype: Dtype,
    seed: u64,
) -> Result<(), BenchError> {
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 16, File::create(path)?);
        out.write_all(&header(tensors, dtype))?;
        for tensor in tensors {
            draw::write(&mut out, (dtype, tensor.fill), tensor.count(), (seed, &tensor.name))?;
        }
        out.flush()
    };
    write().map_err(BenchError::io("write", path))
}
