//! Files of a built plugin. A reader sees a whole file, old or new; an unchanged one keeps its date.

use std::path::Path;

use crate::BuildError;

/// Writes `bytes` to `path` unless they are there already; tells whether it did.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<bool, BuildError> {
    if std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::write(&partial, bytes).map_err(BuildError::failed("write", &partial))?;
    std::fs::rename(&partial, path).map_err(|source| {
        // Not worth a second error.
        let _ = std::fs::remove_file(&partial);
        BuildError::failed("replace", path)(source)
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_is_new_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("plugin.wasm");
        assert!(write(&path, b"one").expect("writes"));
        assert!(!write(&path, b"one").expect("writes"));
        assert!(write(&path, b"two").expect("writes"));
        assert_eq!(std::fs::read(&path).expect("reads"), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
        let error = write(&dir.path().join("none/x"), b"").expect_err("no folder").to_string();
        assert!(error.contains("none"), "{error}");
    }
}
