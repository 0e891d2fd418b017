//! The bytes of a GGUF file: metadata, and where each tensor lies. Source: the specification in GGML's
//! `docs/gguf.md`, versions 2 and 3, little-endian.
//!
//! It knows no model, and trusts no number: a length is compared with what is left of the file before
//! anything is allocated for it.

use std::collections::BTreeMap;
use std::ops::Range;

use kernels::WeightFormat;

/// First bytes of a file.
const MAGIC: &[u8] = b"GGUF";
/// Where tensors begin is a multiple of this unless the metadata says otherwise.
const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: u32 = 4;
/// What a file calls arrays.
const ARRAY: u32 = 9;
/// Most elements of an array that is kept: far above the largest vocabulary and its merges.
const KEPT_MAX: u64 = 1 << 22;

/// A value of the metadata, as far as anybody asks for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    String(String),
    /// An array, its elements not kept.
    Skipped {
        /// Elements.
        len: u64,
    },
    /// An array whose elements were asked for.
    Array(Vec<Value>),
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// `None` for a type that we do not read; its number is in `type_id`.
    pub(super) format: Option<WeightFormat>,
    pub(super) type_id: u32,
    /// Rows first, as everywhere but in the file.
    pub(super) shape: Vec<usize>,
    /// Bytes in the file; empty for a type that we do not read.
    pub(super) bytes: Range<usize>,
}

/// What precedes the tensors.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Reads everything but the tensors' numbers; of arrays the elements of those whose key is to be `kept`.
///
/// # Errors
/// What is wrong and where, as a sentence for whoever knows the file's name.
pub(super) fn read(file: &[u8], kept: impl Fn(&str) -> bool) -> Result<Header, String> {
    let mut cursor = Cursor { file, at: 0 };
    if cursor.take(4)? != MAGIC {
        return Err("does not begin with GGUF".to_owned());
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("is of version {version}; 2 and 3 are read"));
    }
    let (tensors, values) = (cursor.u64()?, cursor.u64()?);
    let mut header = Header::default();
    for _ in 0..values {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        let value = match kind {
            ARRAY if kept(&key) => cursor.array_of_values(),
            _ => cursor.value(kind),
        };
        let value = value.map_err(|error| format!("{key}: {error}"))?;
        if header.metadata.insert(key.clone(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        let name = cursor.string()?;
        let info = cursor.tensor().map_err(|error| format!("tensor {name}: {error}"))?;
        infos.push((name, info));
    }
    let alignment = match header.metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(alignment)) => u64::try_from(*alignment).unwrap_or(0),
        Some(_) => 0,
    };
    let start = (cursor.at as u64)
        .checked_next_multiple_of(alignment)
        .ok_or("general.alignment is not usable")?;
    for (name, (offset, mut info)) in infos {
        info.bytes = place(file.len(), start, offset, &info)
            .ok_or_else(|| format!("tensor {name} does not lie within the file"))?;
        if header.tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    Ok(header)
}

/// Bytes of a tensor `offset` bytes behind `start`; `None` if that is not within the file.
fn place(file_len: usize, start: u64, offset: u64, info: &TensorInfo) -> Option<Range<usize>> {
    let Some(format) = info.format else { return Some(0..0) };
    let elements =
        info.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    let bytes = elements.div_ceil(format.block_len()).checked_mul(format.block_bytes())?;
    let first = usize::try_from(start.checked_add(offset)?).ok()?;
    let end = first.checked_add(bytes)?;
    (end <= file_len).then_some(first..end)
}

/// What a number of the file's says of a type; these are GGML's.
fn format(type_id: u32) -> Option<WeightFormat> {
    Some(match type_id {
        0 => WeightFormat::F32,
        1 => WeightFormat::F16,
        2 => WeightFormat::Q4_0,
        8 => WeightFormat::Q8_0,
        12 => WeightFormat::Q4K,
        14 => WeightFormat::Q6K,
        30 => WeightFormat::Bf16,
        _ => return None,
    })
}

struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let left = &self.file[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| left.get(..len));
        let taken = taken.ok_or_else(|| {
            format!("{len} bytes are expected at {}, {} are left", self.at, left.len())
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("as many as were asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, String> {
        let at = self.at;
        let len = self.u64()?;
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("the string at {at} is not UTF-8"))
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::String(self.string()?),
            ARRAY => self.skip_array()?,
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of type {other}, which is not known")),
        })
    }

    /// No element is allocated before its bytes have been found, and an array has no arrays in it.
    fn array_of_values(&mut self) -> Result<Value, String> {
        let (kind, len) = (self.u32()?, self.u64()?);
        if kind == ARRAY {
            return Err(format!("an array of type {ARRAY}, which is not read"));
        }
        if len > KEPT_MAX {
            return Err(format!("an array of {len} elements; at most {KEPT_MAX} are read"));
        }
        let mut values = Vec::new();
        for _ in 0..len {
            values.push(self.value(kind)?);
        }
        Ok(Value::Array(values))
    }

    fn skip_array(&mut self) -> Result<Value, String> {
        let (kind, len) = (self.u32()?, self.u64()?);
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..len {
                    let bytes = self.u64()?;
                    self.take(bytes)?;
                }
                return Ok(Value::Skipped { len });
            }
            other => return Err(format!("an array of type {other}, which is not read")),
        };
        self.take(len.checked_mul(width).ok_or("an array longer than any file")?)?;
        Ok(Value::Skipped { len })
    }

    /// A tensor's offset, and what is known of it before the tensors' beginning is.
    fn tensor(&mut self) -> Result<(u64, TensorInfo), String> {
        let dimensions = self.u32()?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(format!("has {dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size =
                usize::try_from(self.u64()?).map_err(|_| "a size that can't be addressed")?;
            shape.push(size);
        }
        shape.reverse();
        let type_id = self.u32()?;
        let offset = self.u64()?;
        Ok((offset, TensorInfo { format: format(type_id), type_id, shape, bytes: 0..0 }))
    }
}
