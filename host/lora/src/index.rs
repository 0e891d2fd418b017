//! What is known of an adapter without its weights: how large it will be, what it changes, and
//! whether its files are whole. Reads the configuration and the header of the weights, no tensor.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{CONFIG_FILE, PeftConfig, Target};
use crate::header::{LastHeader, RawFile, WeightsFile};
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
        let file = RawFile::open(dir, shape, &targets)?.check(shape, &targets)?;
        let bytes = addressable(&config, file.bytes(shape, &targets)?)?;
        Ok(Self { targets, file, bytes })
    }

    pub(crate) fn rank_max(&self) -> usize {
        rank_max(&self.targets)
    }

    pub(crate) fn names(&self, shape: &ModelShape) -> Vec<String> {
        names(&self.targets, shape)
    }
}

fn addressable(config: &PeftConfig, bytes: Option<u64>) -> Result<u64, LoraError> {
    bytes.ok_or_else(|| config.invalid("r", "the weights can't be addressed"))
}

fn rank_max(targets: &[Target]) -> usize {
    targets.iter().map(|target| target.rank).max().unwrap_or(0)
}

/// Last names of the modules that are changed, sorted.
fn names(targets: &[Target], shape: &ModelShape) -> Vec<String> {
    let names: BTreeSet<&str> = targets
        .iter()
        .map(|target| {
            let path = shape.modules[target.module].path.as_str();
            path.rsplit('.').next().unwrap_or(path)
        })
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

/// What each part of a blend asks of a base model, with its weight.
pub(crate) fn plans(
    parts: &[(&Path, f32)],
    shape: &ModelShape,
) -> Result<Vec<(Plan, f32)>, LoraError> {
    parts.iter().map(|(dir, weight)| Ok((Plan::read(dir, shape)?, *weight))).collect()
}

/// Rank of each module of a blend.
pub(crate) fn blend_ranks(plans: &[(Plan, f32)], shape: &ModelShape) -> Vec<usize> {
    let mut ranks = vec![0; shape.modules.len()];
    for target in plans.iter().flat_map(|(plan, _)| &plan.targets) {
        ranks[target.module] += target.rank;
    }
    ranks
}

/// Bytes of a blend in memory; `None` if they can't be addressed.
pub(crate) fn blend_bytes(plans: &[(Plan, f32)], shape: &ModelShape) -> Option<u64> {
    let ranks = blend_ranks(plans, shape);
    let mut used = ranks.into_iter().zip(&shape.modules).filter(|(rank, _)| *rank > 0);
    // Weights make floats of whatever the files hold.
    used.try_fold(0_u64, |sum, (rank, module)| {
        sum.checked_add(module.pair_bytes(rank, size_of::<f32>())?)
    })
}

impl Indexed {
    /// Indexes `dir`.
    pub(crate) fn read(
        dir: &Path,
        shape: &ModelShape,
        last: &LastHeader,
    ) -> Result<Self, LoraError> {
        // Taken first: what is written from here on counts as a change.
        let stamp = Stamp::of(dir)?;
        let config = PeftConfig::from_dir(dir)?;
        let targets = config.targets(shape)?;
        let file = RawFile::open(dir, shape, &targets)?;
        let bytes = addressable(&config, last.bytes(file, shape, &targets)?)?;
        let (rank_max, targets) = (rank_max(&targets), names(&targets, shape));
        Ok(Self { dir: dir.to_owned(), rank_max, bytes, targets, stamp })
    }

    /// Indexes the blend of several directories.
    pub(crate) fn blend(parts: &[(&Path, f32)], shape: &ModelShape) -> Result<Self, LoraError> {
        let stamp = Stamp::of(parts[0].0)?;
        let plans = plans(parts, shape)?;
        let bytes = blend_bytes(&plans, shape).unwrap_or(u64::MAX);
        let names = plans.iter().flat_map(|(plan, _)| plan.names(shape));
        let targets = names.collect::<BTreeSet<String>>().into_iter().collect();
        let rank_max = blend_ranks(&plans, shape).into_iter().max().unwrap_or(0);
        Ok(Self { dir: parts[0].0.to_owned(), rank_max, bytes, targets, stamp })
    }

    /// An adapter without files, for tests of who holds what.
    #[cfg(test)]
    pub(crate) fn fake(dir: &str, bytes: u64) -> Self {
        let (dir, stamp) = (dir.into(), Stamp([[0; 3]; 2]));
        Self { dir, rank_max: 1, bytes, targets: Vec::new(), stamp }
    }
}
