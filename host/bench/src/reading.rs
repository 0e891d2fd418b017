//! How long the files of adapters take to read, from the page cache and from the disk: what the time of
//! a cold load is compared with. Reads files of this machine, and asks the system to forget them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use crate::BenchError;
use crate::load::Percentiles;
use crate::shapes::WEIGHTS_FILE;

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What reading adapters takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reads {
    /// Files that were read.
    pub files: usize,
    /// Their mean size.
    pub mean_bytes: f64,
    /// Milliseconds for a file that was read just before.
    pub cached_ms: Percentiles,
    /// Milliseconds for a file that the system was asked to forget.
    pub disk_ms: Percentiles,
}

/// Reads the weights of up to `files_max` adapters directly below `dir`, chosen by `seed`: each once
/// to have it cached, once from the cache, and once after the system was asked to forget it.
///
/// # Errors
/// No adapters, or files that can't be read.
pub fn measure_reads(dir: &Path, files_max: usize, seed: u64) -> Result<Reads, BenchError> {
    let mut files = weights_below(dir)?;
    files.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    files.truncate(files_max.max(1));
    let (mut bytes, mut cached, mut disk) = (0, Vec::new(), Vec::new());
    let mut buffer = vec![0; CHUNK_BYTES];
    for path in &files {
        let failed = || BenchError::io("read", path);
        let mut timed = || {
            let begin = Instant::now();
            let mut file = File::open(path)?;
            let mut length = 0_u64;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok((length, begin.elapsed().as_secs_f64() * 1e3)),
                    read => length += read as u64,
                }
            }
        };
        timed().map_err(failed())?;
        let (length, took) = timed().map_err(failed())?;
        cached.push(took);
        forget(path)?;
        let (_, took) = timed().map_err(failed())?;
        disk.push(took);
        bytes += length;
    }
    Ok(Reads {
        files: files.len(),
        mean_bytes: bytes as f64 / files.len() as f64,
        cached_ms: Percentiles::of(cached),
        disk_ms: Percentiles::of(disk),
    })
}

/// Asks the system to forget the weights of all adapters directly below `dir`, so that who loads one
/// reads the disk; how many there are.
///
/// # Errors
/// No adapters, or files that can't be opened.
pub fn forget_all(dir: &Path) -> Result<usize, BenchError> {
    let files = weights_below(dir)?;
    files.iter().try_for_each(|path| forget(path))?;
    Ok(files.len())
}

fn forget(path: &Path) -> Result<(), BenchError> {
    let drop = || {
        let file = File::open(path)?;
        // What is not on the disk yet is not forgotten.
        file.sync_all()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    };
    drop().map_err(BenchError::io("forget", path))
}

/// The weights files directly below the directories in `dir`, sorted.
fn weights_below(dir: &Path) -> Result<Vec<std::path::PathBuf>, BenchError> {
    let listed = || BenchError::io("list", dir);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(listed())? {
        let path = entry.map_err(listed())?.path().join(WEIGHTS_FILE);
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    match files.is_empty() {
        true => {
            Err(BenchError::setting("adapter-files", format!("no adapters in {}", dir.display())))
        }
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_often_as_is_said() {
        let dir = tempfile::tempdir().expect("folder");
        let error = measure_reads(dir.path(), 2, 0).expect_err("no adapters").to_string();
        assert!(error.starts_with("adapter-files: no adapters in "), "{error}");
        for (name, bytes) in [("a", 3 << 20), ("b", 3 << 20), ("c", 3 << 20)] {
            fs::create_dir(dir.path().join(name)).expect("made");
            fs::write(dir.path().join(name).join(WEIGHTS_FILE), vec![1; bytes]).expect("written");
        }
        fs::create_dir(dir.path().join("empty")).expect("made");
        for (files_max, expect) in [(0, 1), (2, 2), (3, 3), (9, 3)] {
            let reads = measure_reads(dir.path(), files_max, 7).expect("read");
            assert_eq!((reads.files, reads.mean_bytes), (expect, f64::from(3 << 20)));
            let counts = [reads.cached_ms.count, reads.disk_ms.count];
            assert_eq!(counts, [expect as u64; 2]);
            assert!(reads.cached_ms.p50 > 0.0 && reads.disk_ms.p50 > 0.0);
        }
        assert_eq!(forget_all(dir.path()).expect("forgotten"), 3);
        forget_all(&dir.path().join("none")).expect_err("no such folder");
    }
}
