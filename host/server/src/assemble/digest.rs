//! What the base model is: one digest over its configuration and weights. Hashing gigabytes takes
//! seconds, so the result is kept, keyed by the size and date of every file; a file that was changed
//! and set back to its old date is the operator's own doing.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use request::Digest;
use sha2::{Digest as _, Sha256};

use crate::config::{KvCacheDtype, Quantize};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// The configuration is part of what a model is: it says how weights are used.
const CONFIG_FILE: &str = "config.json";

/// Digest of the model in `dir`, or of a GGUF file: name, length and content of its configuration and of every
/// safetensors file, in the order of names.
///
/// # Errors
/// A file can't be read, or there are no weights.
pub(crate) fn of_model(dir: &Path, cache_dir: &Path) -> Result<Digest> {
    let files = files(dir)?;
    let mut stamps = Vec::new();
    for file in &files {
        let named = || format!("look at {}", file.display());
        let path = file.canonicalize().with_context(named)?;
        let meta = path.metadata().with_context(named)?;
        let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
        stamps.push(format!("{}\0{}\0{seconds}.{nanos}", path.display(), meta.len()));
    }
    let key = Digest::of_fields(stamps.iter().map(String::as_bytes));
    let kept = cache_dir.join(format!("model-{key}.digest"));
    if let Ok(text) = std::fs::read_to_string(&kept)
        && let Ok(digest) = text.trim().parse()
    {
        return Ok(digest);
    }
    let digest = hash(&files)?;
    // Written beside and renamed: a torn file would not parse, but an empty rename is clearer.
    let partial = kept.with_extension("partial");
    let written = std::fs::write(&partial, digest.to_string())
        .and_then(|()| std::fs::rename(&partial, &kept));
    if let Err(error) = written {
        tracing::warn!(%error, path = %kept.display(), "the model's digest could not be kept");
    }
    Ok(digest)
}

/// Digest of a model whose files have `digest`, and whose answers are changed by `quantize`, by a cache of
/// another format than its own, and by factors of its rotary frequencies, of which a model may have several
/// sets. Without any it is that of the files.
pub(crate) fn as_served(
    digest: Digest,
    quantize: Option<Quantize>,
    kv_cache: Option<KvCacheDtype>,
    factors: &[f32],
) -> Digest {
    let mut fields = vec![digest.0.to_vec()];
    fields.extend(quantize.map(|format| format.as_str().as_bytes().to_vec()));
    fields
        .extend(kv_cache.map(|format| format!("kv_cache_dtype {}", format.as_str()).into_bytes()));
    if !factors.is_empty() {
        let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes());
        fields.push(b"rope ".iter().copied().chain(bytes).collect());
    }
    match fields.len() {
        1 => digest,
        _ => Digest::of_fields(fields.iter().map(Vec::as_slice)),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    // A GGUF file is weights and configuration in one.
    if dir.is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let listed = || format!("list {}", dir.display());
    let mut weights = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(listed)? {
        let path = entry.with_context(listed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            weights.push(path);
        }
    }
    if weights.is_empty() {
        bail!("{} has no .safetensors file", dir.display());
    }
    weights.sort();
    weights.insert(0, dir.join(CONFIG_FILE));
    Ok(weights)
}

fn hash(files: &[PathBuf]) -> Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    for path in files {
        let named = || format!("read {}", path.display());
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let file = File::open(path).with_context(named)?;
        let length = file.metadata().with_context(named)?.len();
        for field in [name.len() as u64, length] {
            hasher.update(field.to_le_bytes());
        }
        hasher.update(name);
        let mut reader = BufReader::new(file);
        loop {
            let read = reader.read(&mut buffer).with_context(named)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
    }
    Ok(Digest(hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(files: &[(&str, &str)]) -> Digest {
        let (dir, cache) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).expect("written");
        }
        let digest = of_model(dir.path(), cache.path()).expect("a digest");
        assert_eq!(of_model(dir.path(), cache.path()).expect("again"), digest);
        let kept = std::fs::read_dir(cache.path()).expect("cache").count();
        assert_eq!(kept, 1, "the digest was not kept");
        digest
    }

    #[test]
    fn every_file_counts_and_its_place_does() {
        let base =
            digest_of(&[("config.json", "{}"), ("a.safetensors", "12"), ("b.safetensors", "3")]);
        let moved =
            digest_of(&[("config.json", "{}"), ("a.safetensors", "1"), ("b.safetensors", "23")]);
        let other =
            digest_of(&[("config.json", "{ }"), ("a.safetensors", "12"), ("b.safetensors", "3")]);
        assert_ne!(base, moved);
        assert_ne!(base, other);
        let note =
            [("config.json", "{}"), ("a.safetensors", "12"), ("b.safetensors", "3"), ("n", "x")];
        assert_eq!(base, digest_of(&note));
    }

    #[test]
    fn what_changes_answers_makes_another_model() {
        let files = Digest::of_fields([b"files".as_slice()]);
        assert_eq!(as_served(files, None, None, &[]), files);
        let quantize = [None, Some(Quantize::Q8_0), Some(Quantize::Q4_0)];
        let kv_cache = [None, Some(KvCacheDtype::F16), Some(KvCacheDtype::Int8)];
        let factors: [&[f32]; 4] = [&[], &[1.0], &[2.0], &[1.0, 2.0]];
        let mut seen = std::collections::BTreeSet::new();
        for quantize in quantize {
            for kv_cache in kv_cache {
                seen.extend(factors.map(|factors| as_served(files, quantize, kv_cache, factors).0));
            }
        }
        assert_eq!(seen.len(), 3 * 3 * 4);
    }

    #[test]
    fn a_folder_without_weights_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("config.json"), "{}").expect("written");
        let error = of_model(dir.path(), dir.path()).expect_err("no weights").to_string();
        assert!(error.contains("no .safetensors file"), "{error}");
    }
}
