//! A GGUF file written field by field, for the tests of the reader and of models in such files. It checks
//! nothing, so that files may lie.

#[derive(Clone, Default)]
pub(crate) struct File(pub(crate) Vec<u8>);

/// What every file begins with.
pub(crate) fn begin(tensors: u64, values: u64) -> File {
    File(b"GGUF".to_vec()).u32(3).u64(tensors).u64(values)
}

impl File {
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn string(self, value: &str) -> Self {
        let mut file = self.u64(value.len() as u64);
        file.0.extend(value.as_bytes());
        file
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.string(key).u32(8).string(value)
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }

    pub(crate) fn float(self, key: &str, value: f32) -> Self {
        self.string(key).u32(6).u32(value.to_bits())
    }

    /// The beginning of a list of `len` values of type `kind`.
    pub(crate) fn list(self, key: &str, kind: u32, len: u64) -> Self {
        self.string(key).u32(9).u32(kind).u64(len)
    }

    /// What the file says of a tensor; `shape` has rows first.
    pub(crate) fn tensor(self, name: &str, shape: &[u64], type_id: u32, offset: u64) -> Self {
        let mut file = self.string(name).u32(shape.len() as u32);
        for size in shape.iter().rev() {
            file = file.u64(*size);
        }
        file.u32(type_id).u64(offset)
    }

    /// Ends the header, and adds so many bytes.
    pub(crate) fn padded(mut self, data: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 7);
        self
    }
}
