//! What is known of an adapter without its weights: how large it will be, what it changes, and
//! whether its files are whole. Reads the configuration and the header of the weights, no tensor.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{CONFIG_FILE, PeftConfig, Target};
use crate::header::WeightsFile;
use crate::{LoraError, ModelShape, files};

/// A PEFT directory that fits a base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) dir: PathBuf,
    /// Largest rank of any module.
    pub(crate) rank_max: usize,
    /// Bytes of its weights in memory.
    pub(crate) bytes: u64,
    /// Last names of the modules it changes, such as `q_proj`, sorted.
    pub(crate) targets: Vec<String>,
    /// Of the files as they were.
    pub(crate) stamp: Stamp,
}

/// Tells whether files were written since: length, date and inode of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([[i128; 3]; 2]);

impl Stamp {
    /// Looks at the files of `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self, LoraError> {
        let stat = |name: &str| {
            let path = dir.join(name);
            std::fs::metadata(&path).map_err(|source| LoraError::Read { path, source })
        };
        let numbers = |meta: Metadata| {
            let nanos = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            [i128::from(meta.len()), nanos, i128::from(meta.ino())]
        };
        Ok(Self([numbers(stat(CONFIG_FILE)?), numbers(stat(files::WEIGHTS_FILE)?)]))
    }
}

/// What a configuration asks of a base model, and the file that has it.
pub(crate) struct Plan {
    /// Modules with rank and scale, in the order of the shape.
    pub(crate) targets: Vec<Target>,
    pub(crate) file: WeightsFile,
    /// Bytes of the weights in memory.
    pub(crate) bytes: u64,
}

impl Plan {
    /// Reads the configuration and the header of `dir`.
    pub(crate) fn read(dir: &Path, shape: &ModelShape) -> Result<Self, LoraError> {
        let config = PeftConfig::from_dir(dir)?;
        let targets = config.targets(shape)?;
        let file = WeightsFile::open(dir, shape, &targets)?;
        let bytes = file.bytes(shape, &targets)?;
        let bytes = bytes.ok_or_else(|| config.invalid("r", "the weights can't be addressed"))?;
        Ok(Self { targets, file, bytes })
    }

    pub(crate) fn rank_max(&self) -> usize {
        self.targets.iter().map(|target| target.rank).max().unwrap_or(0)
    }

    pub(crate) fn names(&self, shape: &ModelShape) -> Vec<String> {
        let names: BTreeSet<&str> = self
            .targets
            .iter()
            .map(|target| {
                let path = shape.modules[target.module].path.as_str();
                path.rsplit('.').next().unwrap_or(path)
            })
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

impl Indexed {
    /// Indexes `dir`.
    pub(crate) fn read(dir: &Path, shape: &ModelShape) -> Result<Self, LoraError> {
        // Taken first: what is written from here on counts as a change.
        let stamp = Stamp::of(dir)?;
        let plan = Plan::read(dir, shape)?;
        Ok(Self {
            dir: dir.to_owned(),
            rank_max: plan.rank_max(),
            bytes: plan.bytes,
            targets: plan.names(shape),
            stamp,
        })
    }

    /// An adapter without files, for tests of who holds what.
    #[cfg(test)]
    pub(crate) fn fake(dir: &str, bytes: u64) -> Self {
        let (dir, stamp) = (dir.into(), Stamp([[0; 3]; 2]));
        Self { dir, rank_max: 1, bytes, targets: Vec::new(), stamp }
    }
}
